//! Bugs that are planted in the product on purpose, to prove that the layers of tests find such bugs.
//!
//! A bug is a line `if planted("name") { … }` where the real code is, and a line in [`bugs::BUGS`] that says what it
//! breaks and which command must fail because of it; a test keeps the two together. Everything is built once
//! with the feature that makes bugs possible ([`programs`]); which one a process has is told to it by a variable of its
//! environment ([`run`]).
//!
//! | to add | do |
//! |---|---|
//! | a bug | the line where it is, and its line in `bugs.rs` |
//! | a layer that finds bugs | a variant of [`layer::Layer`] |
//!
//! # What counts
//! - Every command is run without any bug first, and must succeed: else its failure would prove nothing.
//! - A bug is caught when the command says so itself: it ends by itself and fails. What is still running after
//!   [`run::LIMIT`] is stopped and has caught nothing; a layer that is to find what hangs has to notice it.
//! - A command that could not be understood (code 2) is an error of the list.

pub mod bugs;
pub mod layer;
pub mod programs;
pub mod report;
pub mod run;
