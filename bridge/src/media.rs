//! Media: files that users upload and send each other.
//!
//! - [`row`] what the store knows of a file · [`rules`] who may read one, what a user may keep, what a message may carry  (pure)

pub mod row;
pub mod rules;
