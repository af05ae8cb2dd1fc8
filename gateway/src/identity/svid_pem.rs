//! A certificate and its key in PEM, as whoever shows them wants them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::CertificateDer;
use tollgate_secrets::X509Svid;
use zeroize::Zeroizing;

use crate::expiry::Validity;

/// A chain and its key (PKCS#8 in DER), in PEM; `None`: the chain has no end.
pub(super) fn svid(chain: &[CertificateDer<'_>], key: &[u8]) -> Option<X509Svid> {
    let ends = Validity::of_chain(chain)?.ends;
    let chain = chain.iter().flat_map(|der| pem("CERTIFICATE", der).to_vec()).collect();
    Some(X509Svid { chain, key: pem("PRIVATE KEY", key), ends })
}

/// RFC 7468, section 2. Grows never, so that no copy is left behind.
fn pem(label: &str, der: &[u8]) -> Zeroizing<Vec<u8>> {
    /// Of each line: 64 characters of base64.
    const LINE: usize = 48;
    let lines = der.len().div_ceil(LINE);
    let mut pem = Zeroizing::new(Vec::with_capacity(lines * 65 + 2 * label.len() + 64));
    pem.extend_from_slice(format!("-----BEGIN {label}-----\n").as_bytes());
    let mut line = Zeroizing::new([0; 64]);
    for bytes in der.chunks(LINE) {
        // 48 bytes are 64 characters.
        let length = STANDARD.encode_slice(bytes, &mut line[..]).unwrap_or_default();
        pem.extend_from_slice(&line[..length]);
        pem.push(b'\n');
    }
    pem.extend_from_slice(format!("-----END {label}-----\n").as_bytes());
    pem
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};
    use rustls::pki_types::PrivateKeyDer;
    use rustls::pki_types::pem::PemObject;

    use super::*;

    #[test]
    fn what_is_made_reads_as_what_it_was() {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::default().self_signed(&key).unwrap();
        let chain = [certificate.der().clone(), certificate.der().clone()];
        let made = svid(&chain, &key.serialize_der()).unwrap();
        let read: Vec<_> = CertificateDer::pem_slice_iter(&made.chain).map(Result::unwrap).collect();
        assert_eq!(read, chain);
        assert_eq!(PrivateKeyDer::from_pem_slice(&made.key).unwrap().secret_der(), key.serialize_der());
        for length in [0, 1, 47, 48, 49, 96] {
            let text = pem("X", &vec![7; length]);
            assert!(
                text.len() <= text.capacity() && text.split(|b| *b == b'\n').all(|line| line.len() <= 64)
            );
        }
    }
}
