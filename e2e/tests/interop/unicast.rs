//! keepalived with `unicast_peer`, in version 2 with a password as well.

use anyhow::Result;

use crate::group::{Group, V4, V6};
use crate::roles;

const ON_V4: Group = Group {
    vrrp: &["peering: { mode: Unicast, addresses: [192.168.1.14, 192.168.1.15] }"],
    instance: &[
        "unicast_src_ip 192.168.1.15",
        "unicast_peer {",
        "    192.168.1.14",
        "}",
    ],
    ..Group::of(3, V4)
};

/// Between addresses that are not link-local, which is what keepalived's users list. Unless it is told
/// otherwise, it sends these packets with the host's own hop limit, which is 64.
const ON_V6: Group = Group {
    vrrp: &[r#"peering: { mode: Unicast, addresses: ["fd00:1::14", "fd00:1::15"] }"#],
    instance: &[
        "unicast_ttl 255",
        "unicast_src_ip fd00:1::15",
        "unicast_peer {",
        "    fd00:1::14",
        "}",
    ],
    ..Group::of(3, V6)
};

const WITH_PASSWORD: Group = Group {
    version: 2,
    vrrp: &[
        ON_V4.vrrp[0],
        "authentication: { mode: SimplePassword, password: geheim }",
    ],
    instance: &[
        ON_V4.instance[0],
        ON_V4.instance[1],
        ON_V4.instance[2],
        ON_V4.instance[3],
        "authentication {",
        "    auth_type PASS",
        "    auth_pass geheim",
        "}",
    ],
    ..ON_V4
};

#[test]
fn version_2_by_unicast_with_a_password_with_wsha_active() -> Result<()> {
    let test = "version_2_by_unicast_with_a_password_with_wsha_active";
    roles::wsha_active(test, WITH_PASSWORD)
}

#[test]
fn version_2_by_unicast_with_a_password_with_keepalived_active() -> Result<()> {
    let test = "version_2_by_unicast_with_a_password_with_keepalived_active";
    roles::wsha_backup(test, WITH_PASSWORD)
}

#[test]
fn version_3_by_unicast_with_wsha_active() -> Result<()> {
    roles::wsha_active("version_3_by_unicast_with_wsha_active", ON_V4)
}

#[test]
fn version_3_by_unicast_with_keepalived_active() -> Result<()> {
    roles::wsha_backup("version_3_by_unicast_with_keepalived_active", ON_V4)
}

#[test]
fn ipv6_by_unicast_with_wsha_active() -> Result<()> {
    roles::wsha_active("ipv6_by_unicast_with_wsha_active", ON_V6)
}

#[test]
fn ipv6_by_unicast_with_keepalived_active() -> Result<()> {
    roles::wsha_backup("ipv6_by_unicast_with_keepalived_active", ON_V6)
}
