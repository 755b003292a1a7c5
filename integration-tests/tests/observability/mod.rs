//! What the system tells of itself, as those see it who watch over it.

mod panels;
mod traces;
