//! Where a secret belongs that something is minted of: it goes to no other endpoint, and to nobody as it is.

use crate::compile::Compiler;
use crate::compile::place::Place;
use crate::name::ResourceId;
use crate::policy::Parts;
use crate::resource::Credential;

impl Compiler<'_> {
    /// What one credential shows to a token endpoint, no other shows to anybody else. The first that is minted of a secret says where
    /// that secret belongs.
    pub(in crate::compile) fn check_bound(&mut self) {
        let mut homes: Vec<Home<'_>> = Vec::new();
        let in_order = self.model.credentials.iter().filter_map(|it| self.parts.credentials.get(&it.id));
        for credential in in_order {
            let Some(mint) = &credential.mint else { continue };
            for (store, place) in places(credential, &self.parts) {
                let home = Home { place, store, credential, endpoint: &mint.endpoint.destination };
                let is_known =
                    |known: &Home<'_>| known.place.overlaps(&home.place) && self.are_of_one(known, &home);
                if !homes.iter().any(is_known) {
                    homes.push(home);
                }
            }
        }
        for resource in &self.model.credentials {
            let Some(credential) = self.parts.credentials.get(&resource.id) else { continue };
            let own: Vec<_> = places(credential, &self.parts).map(|(_, place)| place).collect();
            let shared = |home: &&Home<'_>| {
                self.binds(home, &resource.id) && own.iter().any(|own| home.place.overlaps(own))
            };
            let shared: Vec<_> = homes.iter().filter(shared).collect();
            for Home { credential: first, endpoint: home, .. } in shared {
                let (path, strays) = match &credential.mint {
                    Some(mint) => ("spec.mint.endpoint.destination", mint.endpoint.destination != **home),
                    None => ("spec.from", credential.destinations.iter().any(|own| own.name != **home)),
                };
                if strays {
                    let first = &first.name;
                    let is_told = self.namespaces.is_none() || first.namespace() == resource.id.namespace();
                    let message = match is_told {
                        true => format!(
                            "Credential/{first} binds this secret to its token endpoint at Destination/{home}, and here it would go elsewhere"
                        ),
                        false => "a Credential of another namespace binds this secret to its token endpoint, and here it would go elsewhere".to_owned(),
                    };
                    self.problems.push(resource.source.problem(path, message));
                }
            }
        }
    }

    /// Whether one of them stands for both: in files all, in a cluster those of one namespace.
    fn are_of_one(&self, one: &Home<'_>, other: &Home<'_>) -> bool {
        self.namespaces.is_none() || one.credential.name.namespace() == other.credential.name.namespace()
    }

    /// Whether a credential has to keep to this home. In a cluster the owners of the store bind everybody, and others only themselves:
    /// what an app makes of a secret that it was shown breaks nobody else's.
    fn binds(&self, home: &Home<'_>, credential: &ResourceId) -> bool {
        let whose = home.credential.name.namespace();
        self.namespaces.is_none() || whose == credential.namespace() || whose == home.store.namespace()
    }
}

/// Where a secret belongs that something is minted of.
struct Home<'a> {
    place: Place<'a>,
    store: &'a ResourceId,
    credential: &'a Credential,
    endpoint: &'a ResourceId,
}

/// Where what it shows to anybody is read, and of which store.
fn places<'a>(
    credential: &'a Credential,
    parts: &'a Parts,
) -> impl Iterator<Item = (&'a ResourceId, Place<'a>)> {
    let client = credential.mint.as_ref().and_then(|mint| mint.client_secret());
    let secrets = credential.keys.iter().map(|key| &key.from).chain(client);
    secrets
        .filter_map(|secret| Some((&secret.store, Place::of(secret, &parts.stores.get(&secret.store)?.kind))))
}
