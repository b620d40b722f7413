//! Each transition and rule of the state machine by name.
#![allow(
    clippy::unchecked_time_subtraction,
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests"
)]

mod bench;
mod leaving;
mod ours;
mod peers;
mod standard;
mod versions;

/// One test per rule and version.
macro_rules! in_both_versions {
    ($file:ident: $($rule:ident)+) => {
        mod v2 {
            $(#[test] fn $rule() { super::$file::$rule(vrrp::Version::V2); })+
        }
        mod v3 {
            $(#[test] fn $rule() { super::$file::$rule(vrrp::Version::V3); })+
        }
    };
}

in_both_versions! { standard:
    startup_leads_to_backup
    owner_starts_as_active
    owner_preempts_whatever_the_mode
    backup_rises_when_the_timer_fires
    backup_ignores_an_early_timer
    backup_stops_silently
    backup_waits_skew_after_priority_0
    backup_is_held_by_higher_and_equal_priority
    backup_preempts_a_lower_priority
    backup_without_preemption_is_held_by_a_lower_priority
    active_advertises_every_interval
    active_releases_when_stopped
    active_answers_priority_0
    active_yields_to_a_higher_priority
    active_yields_to_the_greater_address
    active_asserts_itself_against_a_lower_one
    initialize_says_nothing
    foreign_advertisements_are_dropped
    two_owners_settle_by_address
    own_packets_that_come_back_are_dropped
}
