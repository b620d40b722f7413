//! keepalived in versions 2 and 3 and in version 3 over IPv6, by multicast as it is by default.

use anyhow::Result;

use crate::group::{Group, V4, V6, V6_ALONE};
use crate::roles;

#[test]
fn version_2_with_wsha_active() -> Result<()> {
    roles::wsha_active("version_2_with_wsha_active", Group::of(2, V4))
}

#[test]
fn version_2_with_keepalived_active() -> Result<()> {
    roles::wsha_backup("version_2_with_keepalived_active", Group::of(2, V4))
}

#[test]
fn version_3_with_wsha_active() -> Result<()> {
    roles::wsha_active("version_3_with_wsha_active", Group::of(3, V4))
}

#[test]
fn version_3_with_keepalived_active() -> Result<()> {
    roles::wsha_backup("version_3_with_keepalived_active", Group::of(3, V4))
}

#[test]
fn ipv6_with_wsha_active() -> Result<()> {
    roles::wsha_active("ipv6_with_wsha_active", Group::of(3, V6))
}

#[test]
fn ipv6_with_keepalived_active() -> Result<()> {
    roles::wsha_backup("ipv6_with_keepalived_active", Group::of(3, V6))
}

#[test]
fn ipv6_without_a_link_local_address_with_wsha_active() -> Result<()> {
    let test = "ipv6_without_a_link_local_address_with_wsha_active";
    roles::wsha_active(test, Group::of(3, V6_ALONE))
}
