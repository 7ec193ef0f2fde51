//! The whole operator on a real API server: a manifest goes in, a platform comes out, and its status says so.

mod brokers;
mod crashes;
mod deletions;
mod first;
mod ground;
mod plans;
mod repair;
mod rest;
mod restarts;
mod rotations;
mod rungs;
mod stored;
mod storm;
mod storms;
mod tap;
mod walks;
mod world;
