//! What a canary can stand for. A run of all scenarios has to have swept at least one of each, see `tests/runner/sweep.py`.

macro_rules! kinds {
    ($($kind:ident: $words:literal;)*) => {
        /// A kind of store, of minting, of injection, or of what a grant passes on.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum SecretKind {
            $(#[doc = $words] $kind,)*
        }

        impl SecretKind {
            const ALL: &[Self] = &[$(Self::$kind),*];

            /// Its group, and what resources call it.
            pub const fn words(self) -> &'static str {
                match self {
                    $(Self::$kind => $words,)*
                }
            }
        }
    };
}

// The shape check `canary_kinds` proves that no kind of the model is missing.
kinds! {
    File: "store file";
    Age: "store age";
    Vault: "store vault";
    Aws: "store aws";
    Env: "store env";
    Kubernetes: "store kubernetes";
    Svid: "store svid";
    Pool: "from pool";
    ClientCredentials: "mint clientCredentials";
    TokenExchange: "mint tokenExchange";
    JwtBearer: "mint jwtBearer";
    GithubApp: "mint githubApp";
    AwsAssumeRole: "mint awsAssumeRole";
    AwsWebIdentity: "mint awsWebIdentity";
    Bearer: "inject bearer";
    Header: "inject header";
    Basic: "inject basic";
    Query: "inject query";
    Cookie: "inject cookie";
    SigV4: "inject sigv4";
    Hmac: "inject hmac";
    ClientCertificate: "inject clientCertificate";
    CallerToken: "grant callerToken";
}

impl SecretKind {
    /// One line for each.
    pub fn list() -> String {
        Self::ALL.iter().map(|kind| format!("{}\n", kind.words())).collect()
    }

    /// The one way of injection that a YAML flow mapping like `{bearer: {}}` names first.
    pub fn of_injection(inject: &str) -> Self {
        let word = inject.trim_start_matches('{').split(':').next().unwrap_or_default();
        let named = |kind: &&Self| kind.words().strip_prefix("inject ") == Some(word);
        *Self::ALL.iter().find(named).unwrap_or_else(|| panic!("no way of injection: {inject}"))
    }
}
