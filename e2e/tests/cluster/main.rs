//! A real cluster of several nodes on this machine: scenarios in order, as one cluster serves them all.

mod copy;
mod ends;
mod gateways;
mod harness;
mod membership;
mod memory;
mod nodes;
mod release;
mod rolling;
mod servers;
mod stage;
mod streams;
mod tls;

use std::process::ExitCode;

use harness::Scenario;

/// Any cluster will do, or one whose nodes are on this machine.
macro_rules! scenarios {
    ($($where:ident $module:ident::$name:ident,)*) => {
        &[$(Scenario {
            name: stringify!($name),
            local: matches!(stringify!($where).as_bytes(), b"local"),
            run: $module::$name,
        },)*]
    };
}

const SCENARIOS: &[Scenario] = scenarios![
    local nodes::pods_run_and_services_answer,
    local nodes::a_node_without_power_returns,
    any release::the_chart_serves_a_pool,
    any release::helm_test_passes,
    any servers::servers_scale_under_live_sessions,
    any tls::a_client_by_tls_resumes_at_another_node,
    local gateways::a_killed_proxy_is_restarted_in_place,
    local gateways::a_proxy_out_of_memory_is_restarted_in_place,
    local gateways::a_killed_pod_gives_its_address_up_and_takes_it_back,
    local gateways::a_deleted_pod_gives_its_address_up_and_takes_it_back,
    local gateways::a_node_without_power_is_replaced_and_returns,
    local membership::a_cordoned_and_drained_node_comes_last,
    local membership::a_relabelled_node_leaves_and_another_joins,
    local membership::a_removed_node_leaves_and_returns,
    local rolling::gateways_restart_one_after_another,
    local rolling::controllers_restart_unnoticed,
    local release::an_upgrade_and_its_rollback,
    local ends::an_uninstall_given_up_after_its_hook_is_undone,
    local ends::uninstall_names_a_node_that_cannot_be_reached,
    any ends::uninstall_leaves_nothing,
];

fn main() -> ExitCode {
    harness::run(SCENARIOS)
}
