//! Requests that ask for no session, as users write it.

use node_api::PlainRequests;

use super::timing;
use crate::Problem;

/// `plainRequests` of the listener at `path`; `None` where they are refused.
pub(super) fn plain_requests(
    problems: &mut Vec<Problem>,
    path: &str,
    spec: Option<&crds::PlainRequests>,
) -> Option<PlainRequests> {
    let spec = spec?;
    let field = format!("{path}.plainRequests.timeout");
    timing::limit(problems, &field, spec.timeout, false);
    match spec.mode {
        crds::PlainRequestsMode::Refused => None,
        crds::PlainRequestsMode::Proxied => Some(PlainRequests {
            timeout: spec.timeout.get(),
        }),
    }
}
