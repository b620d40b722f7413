//! The proxy process as its users see it: the real program, alone and with an agent.

mod served;
mod standalone;
mod support;
