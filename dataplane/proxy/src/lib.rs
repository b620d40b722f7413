//! The WebSocket proxy: handshake, upstream choice, relay, drain.
