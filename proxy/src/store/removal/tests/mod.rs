//! The protocol, explored: every order of steps, and at each step a crash, a pause without end, and a request that is lost,
//! repeated, or late. `explorer` walks, `world` is the bucket and who acts on it, `scenarios` are the beginnings and what must hold.
//! `omitted` leaves out each rule in turn and demands that the walk finds what goes wrong: that is the proof that it can.

mod explorer;
mod machines;
mod omitted;
mod properties;
mod scenarios;
mod setting;
mod world;
