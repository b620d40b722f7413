//! Reads files that hold the objects: `WebSocketHAPool`, `Node`, `Service`, `EndpointSlice`.
//!
//! A set of files is accepted or refused as a whole: a host that took half of them would plan
//! differently from its neighbours. Files are held to the API's own schemas, which name misspelt
//! fields; and what is accepted has been planned once, so that it can be planned.

mod document;
mod nulls;
mod object;
mod refusal;
mod strict;
mod yaml;

use std::collections::BTreeMap;

pub use refusal::Refusal;

use self::object::{Identity, Object};
use crate::{Inputs, Objects, Plan, Problem, model::PoolIntent, plan};

/// Files that were accepted.
#[derive(Clone, Debug, PartialEq)]
pub struct Accepted {
    /// What they hold.
    pub objects: Objects,
    /// What that means. Nothing is rejected in it; what is unresolved may be meant so.
    pub plan: Plan,
}

/// Reads and plans `files`, pairs of a name for messages and the text. They are refused where the
/// plan rejects something, clashes between objects included, and where a reference leads nowhere:
/// what is missing in the files will not come from elsewhere.
pub fn accept(files: &[(String, String)]) -> Result<Accepted, Vec<Refusal>> {
    let mut set = Set::default();
    for (file, text) in files {
        set.read(file, text);
    }
    set.finish(
        files
            .first()
            .map_or("the manifests", |(file, _)| file.as_str()),
    )
}

/// The objects of [`accept`].
pub fn parse(files: &[(String, String)]) -> Result<Objects, Vec<Refusal>> {
    accept(files).map(|accepted| accepted.objects)
}

/// What was read so far.
#[derive(Default)]
struct Set {
    objects: Objects,
    /// The file of each object.
    origins: BTreeMap<Identity, String>,
    refusals: Vec<Refusal>,
}

impl Set {
    fn read(&mut self, file: &str, text: &str) {
        let values = match document::values(text) {
            Ok(values) => values,
            Err(fault) => {
                self.refusals.push(Refusal {
                    file: file.to_owned(),
                    object: fault.object,
                    path: fault.path,
                    message: fault.message,
                });
                return;
            }
        };
        for (index, value) in values.into_iter().enumerate() {
            match object::object(file, index + 1, value) {
                Ok((identity, object)) => self.insert(file, identity, object),
                Err(refusals) => self.refusals.extend(refusals),
            }
        }
    }

    fn insert(&mut self, file: &str, identity: Identity, object: Object) {
        if let Some(first) = self.origins.get(&identity) {
            self.refusals.push(Refusal {
                file: file.to_owned(),
                object: Some(identity.to_string()),
                path: None,
                message: format!(
                    "is a second one of that name, after that in {first}; remove one of the two"
                ),
            });
            return;
        }
        self.origins.insert(identity, file.to_owned());
        match object {
            Object::Pool(pool) => self.objects.pools.push((*pool).into()),
            Object::Node(node) => self.objects.nodes.push((*node).into()),
            Object::Service(service) => self.objects.services.push((*service).into()),
            Object::EndpointSlice(slice) => self.objects.endpoint_slices.push((*slice).into()),
        }
    }

    fn finish(mut self, first_file: &str) -> Result<Accepted, Vec<Refusal>> {
        // What objects say of each other is looked at only once each makes sense by itself: a pool
        // that is missing for a misspelt field would give rise to misleading complaints.
        if !self.refusals.is_empty() {
            for pool in &self.objects.pools {
                if let Err(problems) = PoolIntent::try_from(&**pool) {
                    let identity = Identity::pool(&crate::model::pool_ref(pool));
                    self.refusals
                        .extend(refusals(&self.origins, &identity, problems));
                }
            }
            return Err(self.refusals);
        }
        // Without a Node every address would go.
        if self.objects.nodes.is_empty() {
            return Err(vec![Refusal::of_file(
                first_file,
                "there is no Node in the manifests; list each host as an object of kind Node",
            )]);
        }
        let inputs = Inputs::plain_hosts(self.objects);
        let plan = plan(&inputs);
        let missing = plan.unresolved.iter().map(|(pool, problems)| {
            let problems = problems.iter();
            let missing = problems.filter(|problem| !problem.reason.may_be_meant());
            (pool, missing.cloned().collect())
        });
        let rejected = plan.rejected.iter();
        let rejected = rejected.map(|(pool, problems)| (pool, problems.clone()));
        for (pool, problems) in rejected.chain(missing) {
            self.refusals
                .extend(refusals(&self.origins, &Identity::pool(pool), problems));
        }
        if self.refusals.is_empty() {
            Ok(Accepted {
                objects: inputs.objects,
                plan,
            })
        } else {
            Err(self.refusals)
        }
    }
}

fn refusals(
    origins: &BTreeMap<Identity, String>,
    identity: &Identity,
    problems: Vec<Problem>,
) -> Vec<Refusal> {
    let file = origins.get(identity).cloned().unwrap_or_default();
    let refusals = problems.into_iter().map(|problem| Refusal {
        file: file.clone(),
        object: Some(identity.to_string()),
        path: Some(problem.path),
        message: problem.message,
    });
    refusals.collect()
}
