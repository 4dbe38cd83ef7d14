//! Real files of the real sink, a record made by hand, and every kind of damage.

mod clean;
mod damage;
mod deep;
mod offsets;
mod running;
mod size;
mod support;
