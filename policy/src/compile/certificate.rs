//! Client certificates: shown where their owner says, and only what is one.

use super::{Compiler, Scope};
use crate::name::Name;

impl Compiler<'_> {
    pub(super) fn check_certificates(&mut self) {
        for resource in &self.model.destinations {
            let written = resource.spec.tls.as_ref().and_then(|tls| tls.client_certificate.as_ref());
            let Some(name) = written else { continue };
            let path = "spec.tls.clientCertificate";
            let mut scope = Scope { source: &resource.source, problems: &mut self.problems };
            let known = (self.model.credentials.as_slice(), self.model.incomplete);
            let found = scope.resolve((path, "Credential", name), known, &self.parts.credentials);
            let Some(credential) = found else { continue };
            let is_bound = credential.destinations.iter().any(|bound| bound.name == resource.name);
            if credential.client_certificate().is_none() {
                let message = format!("`{name}` is put on calls, and is no client certificate");
                scope.problem(path, message);
            } else if !is_bound {
                let bound: Vec<&str> =
                    credential.destinations.iter().map(|bound| bound.name.as_str()).collect();
                let (this, bound) = (&resource.name, bound.join(", "));
                let message = format!("`{name}` may not be shown to `{this}`: it is bound to {bound}");
                scope.problem(path, message);
            }
        }
        for resource in &self.model.credentials {
            let mint = resource.spec.mint.as_ref().and_then(|mint| mint.endpoint.as_ref());
            let endpoint: Option<&Name> = mint.and_then(|endpoint| endpoint.destination.as_ref());
            let destination = endpoint.and_then(|name| self.parts.destinations.get(name));
            if destination.is_some_and(|destination| destination.client_certificate.is_some()) {
                let message = "a token endpoint is shown no client certificate";
                self.problems.push(resource.source.problem("spec.mint.endpoint.destination", message));
            }
        }
    }
}
