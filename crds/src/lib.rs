//! The API as users see it: WebSocketHAPool.
