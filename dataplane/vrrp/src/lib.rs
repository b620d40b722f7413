//! VRRP versions 2 and 3: formats and state machine, without I/O and without a clock.
