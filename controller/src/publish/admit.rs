//! Who may open a stream: a data-plane pod, by its token, for its own node.

use std::{collections::BTreeMap, fmt, time::Duration};

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use kube::{Api, Client, api::PostParams};
use node_api::stream::AUDIENCE;
use tokio::time::timeout;

/// Limit for the review of a token.
const REVIEW: Duration = Duration::from_secs(5);
/// Where the API server says what a token is bound to.
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";

/// Whose stream it is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Admitted {
    /// The node that the pod runs on.
    pub node: String,
    /// The pod.
    pub pod: String,
    /// Its UID: the stream ends with it.
    pub pod_uid: String,
}

/// Why a stream is refused.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Refusal {
    /// The token is none, or not for this audience, or over.
    NotAuthenticated(String),
    /// It is somebody else's, or bound to no pod and node.
    Forbidden(String),
    /// The API server did not answer.
    Unavailable(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAuthenticated(why) => write!(f, "not authenticated: {why}"),
            Self::Forbidden(why) => write!(f, "forbidden: {why}"),
            Self::Unavailable(why) => write!(f, "cannot be decided: {why}"),
        }
    }
}

/// What is asked of a token.
#[derive(Clone, Debug)]
pub struct Admission {
    /// `system:serviceaccount:NAMESPACE:NAME` of the data plane.
    pub user: String,
}

impl Admission {
    /// For the data plane's account.
    pub fn new(namespace: &str, account: &str) -> Self {
        Self {
            user: format!("system:serviceaccount:{namespace}:{account}"),
        }
    }

    /// Judges the API server's answer.
    ///
    /// # Errors
    /// If the token does not open a stream.
    pub fn judge(&self, review: &TokenReview) -> Result<Admitted, Refusal> {
        let status = review.status.clone().unwrap_or_default();
        if status.authenticated != Some(true) {
            let why = status
                .error
                .unwrap_or_else(|| "the token is not valid".to_owned());
            return Err(Refusal::NotAuthenticated(why));
        }
        if !status
            .audiences
            .iter()
            .flatten()
            .any(|audience| audience == AUDIENCE)
        {
            return Err(Refusal::NotAuthenticated(format!(
                "the token is not for {AUDIENCE}"
            )));
        }
        let user = status.user.unwrap_or_default();
        if user.username.as_deref() != Some(&*self.user) {
            return Err(Refusal::Forbidden(format!(
                "the token is that of {}, not of {}",
                user.username.as_deref().unwrap_or("nobody"),
                self.user
            )));
        }
        // A token that is bound to no pod authenticates too, and outlives every pod.
        match (
            extra(&user, NODE_NAME),
            extra(&user, POD_NAME),
            extra(&user, POD_UID),
        ) {
            (Some(node), Some(pod), Some(pod_uid)) => Ok(Admitted { node, pod, pod_uid }),
            _ => Err(Refusal::Forbidden(
                "the token is bound to no pod and node; use a projected one".to_owned(),
            )),
        }
    }
}

fn extra(user: &UserInfo, key: &str) -> Option<String> {
    let extra: Option<&BTreeMap<String, Vec<String>>> = user.extra.as_ref();
    extra?.get(key)?.first().cloned()
}

/// Asks what a token is.
pub trait Reviewer: Send + Sync + 'static {
    /// Whose the token is.
    fn review(&self, token: &str) -> impl Future<Output = Result<Admitted, Refusal>> + Send;
}

/// Asks the API server.
#[derive(Clone)]
pub struct TokenReviews {
    /// Client of the API server.
    pub client: Client,
    /// What is asked of a token.
    pub admission: Admission,
}

impl fmt::Debug for TokenReviews {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("TokenReviews");
        shown
            .field("admission", &self.admission)
            .finish_non_exhaustive()
    }
}

impl Reviewer for TokenReviews {
    async fn review(&self, token: &str) -> Result<Admitted, Refusal> {
        let api: Api<TokenReview> = Api::all(self.client.clone());
        let question = TokenReview {
            spec: TokenReviewSpec {
                token: Some(token.to_owned()),
                audiences: Some(vec![AUDIENCE.to_owned()]),
            },
            ..TokenReview::default()
        };
        match timeout(REVIEW, api.create(&PostParams::default(), &question)).await {
            Ok(Ok(review)) => self.admission.judge(&review),
            Ok(Err(error)) => Err(Refusal::Unavailable(error.to_string())),
            Err(_) => Err(Refusal::Unavailable(
                "the API server does not answer".to_owned(),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn judge(status: &serde_json::Value) -> Result<Admitted, Refusal> {
        let review = serde_json::from_value(json!({"spec": {}, "status": status})).unwrap();
        Admission::new("wsha", "wsha-dataplane").judge(&review)
    }

    fn good() -> serde_json::Value {
        json!({
            "authenticated": true,
            "audiences": [AUDIENCE],
            "user": {
                "username": "system:serviceaccount:wsha:wsha-dataplane",
                "extra": {NODE_NAME: ["n1"], POD_NAME: ["p1"], POD_UID: ["u1"]},
            },
        })
    }

    #[test]
    fn a_data_plane_pod_is_admitted_for_its_own_node() {
        let admitted = judge(&good()).unwrap();
        assert_eq!(
            (&*admitted.node, &*admitted.pod, &*admitted.pod_uid),
            ("n1", "p1", "u1")
        );
    }

    #[test]
    fn all_others_are_refused() {
        let with = |change: &dyn Fn(&mut serde_json::Value)| {
            let mut status = good();
            change(&mut status);
            judge(&status)
        };
        let refused = with(&|status| status["authenticated"] = false.into());
        assert!(matches!(refused, Err(Refusal::NotAuthenticated(_))));
        let refused =
            with(&|status| status["audiences"] = json!(["https://kubernetes.default.svc"]));
        assert!(matches!(refused, Err(Refusal::NotAuthenticated(_))));
        let refused = with(&|status| status["user"]["username"] = "system:admin".into());
        assert!(matches!(refused, Err(Refusal::Forbidden(_))));
        let refused = with(&|status| status["user"]["extra"] = json!({}));
        assert!(matches!(refused, Err(Refusal::Forbidden(_))));
        assert!(judge(&json!(null)).is_err());
    }
}
