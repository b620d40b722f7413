//! `wsha-dataplane`: the one program of a gateway host.

fn main() {}
