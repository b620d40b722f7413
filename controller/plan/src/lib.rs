//! The planner: objects in, assignments and upstream lists out; pure.
