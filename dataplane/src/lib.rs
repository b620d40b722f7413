//! wsha-dataplane: agent, vrrp and proxy processes of a gateway host.
