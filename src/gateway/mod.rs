//! The data path.

pub mod password;
pub mod quota;
