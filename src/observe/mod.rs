//! What a person or a machine can see of the agent, and how it is asked. It imports no stage.

pub mod buffer;
pub mod control;
pub mod logs;
