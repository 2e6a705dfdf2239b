//! What a person or a machine can see of the agent. It imports no stage.

pub mod logs;
