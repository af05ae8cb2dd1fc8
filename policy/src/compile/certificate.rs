//! Client certificates: shown where their owner says, and only what is one.

use super::{Compiler, Scope};

impl Compiler<'_> {
    pub(super) fn check_certificates(&mut self) {
        for resource in &self.model.destinations {
            let written = resource.spec.tls.as_ref().and_then(|tls| tls.client_certificate.as_ref());
            let Some(reference) = written else { continue };
            let path = "spec.tls.clientCertificate";
            let mut scope = Scope::new(resource, self.namespaces, &mut self.problems);
            let known = (self.model.credentials.as_slice(), self.model.incomplete);
            let found = scope.resolve((path, reference), known, &self.parts.credentials);
            let name = &scope.id(reference);
            if found.is_some_and(|credential| credential.client_certificate().is_none()) {
                let message = format!("`{name}` is put on calls, and is no client certificate");
                scope.problem(path, message);
            } else if let Some(credential) = self.model.credential(name) {
                scope.check_binding((path, "shown"), &resource.id, credential);
            }
        }
    }
}
