//! What is wanted, for how long, and whose turn it is. Pure: no IO, no clock, and nothing of the wire.
