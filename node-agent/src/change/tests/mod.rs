//! Properties over generated trees and plans, and the cases that a person would ask about.

mod cases;
mod properties;
mod tree;
