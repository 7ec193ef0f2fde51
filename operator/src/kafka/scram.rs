//! The client's side of SCRAM (RFC 5802, RFC 7677): proves that it knows the password without sending it, and learns
//! whether the broker knows it too.
//!
//! Pure but for the time that hashing takes: a broker names the number of rounds, within [`ROUNDS`].

use std::num::NonZeroU32;
use std::ops::RangeInclusive;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::{digest, hmac, pbkdf2};

/// Fewer would let whoever listens try passwords cheaply (RFC 7677 asks for 4,096, and Kafka for no fewer); more would let
/// a broker keep the operator busy.
const ROUNDS: RangeInclusive<u32> = 4_096..=500_000;

/// The header of a client that binds to no channel (RFC 5802, section 7).
const NO_BINDING: &str = "n,,";

/// Why a broker's message will not do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ScramError {
    /// The broker says why.
    #[error("{0}")]
    Refused(String),
    /// It is not what RFC 5802 has there.
    #[error("its message has no usable {0}")]
    Malformed(&'static str),
    /// Too few or too many rounds.
    #[error("it asks for {0} rounds of hashing; between {low} and {high} are accepted", low = ROUNDS.start(), high = ROUNDS.end())]
    Rounds(u32),
    /// Somebody who does not know the password answers in the broker's place.
    #[error("it could not prove that it knows the password: something else answers at this address")]
    NotTheBroker,
}

/// The hash that a mechanism is built on.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Hash {
    Sha256,
    Sha512,
}

impl Hash {
    fn digest(self) -> &'static digest::Algorithm {
        match self {
            Self::Sha256 => &digest::SHA256,
            Self::Sha512 => &digest::SHA512,
        }
    }

    fn hmac(self) -> hmac::Algorithm {
        match self {
            Self::Sha256 => hmac::HMAC_SHA256,
            Self::Sha512 => hmac::HMAC_SHA512,
        }
    }

    fn pbkdf2(self) -> pbkdf2::Algorithm {
        match self {
            Self::Sha256 => pbkdf2::PBKDF2_HMAC_SHA256,
            Self::Sha512 => pbkdf2::PBKDF2_HMAC_SHA512,
        }
    }

    fn sign(self, key: &[u8], text: &[u8]) -> hmac::Tag {
        hmac::sign(&hmac::Key::new(self.hmac(), key), text)
    }
}

/// A login that has begun.
pub(crate) struct Login {
    hash: Hash,
    password: String,
    nonce: String,
    /// The first message without its header.
    opening: String,
}

/// What the broker must still prove.
pub(crate) struct Proof {
    key: hmac::Key,
    conversation: String,
}

impl Login {
    /// `nonce`: unpredictable, printable, without a comma.
    pub(crate) fn begin(hash: Hash, username: &str, password: &str, nonce: String) -> Self {
        let username = username.replace('=', "=3D").replace(',', "=2C");
        Self {
            hash,
            // As it is: Kafka stores what is made of the bytes, without the preparation that RFC 5802 has.
            password: password.to_owned(),
            opening: format!("n={username},r={nonce}"),
            nonce,
        }
    }

    /// What to send first.
    pub(crate) fn first(&self) -> String {
        format!("{NO_BINDING}{}", self.opening)
    }

    /// What to send when the broker has challenged, and what to hold its last message to. Takes as long as the broker's
    /// rounds of hashing.
    pub(crate) fn answer(&self, challenge: &str) -> Result<(String, Proof), ScramError> {
        let nonce = attribute(challenge, "r=")?;
        // Beginning with ours, and longer: else somebody plays back an earlier login.
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() {
            return Err(ScramError::Malformed("nonce"));
        }
        let salt = BASE64.decode(attribute(challenge, "s=")?);
        let salt = salt.map_err(|_| ScramError::Malformed("salt"))?;
        let rounds = attribute(challenge, "i=")?
            .parse()
            .map_err(|_| ScramError::Malformed("number of rounds"))?;
        if !ROUNDS.contains(&rounds) {
            return Err(ScramError::Rounds(rounds));
        }
        let rounds = NonZeroU32::new(rounds).ok_or(ScramError::Rounds(rounds))?;

        let mut salted = vec![0; self.hash.digest().output_len()];
        pbkdf2::derive(self.hash.pbkdf2(), rounds, &salt, self.password.as_bytes(), &mut salted);
        let client_key = self.hash.sign(&salted, b"Client Key");
        let stored_key = digest::digest(self.hash.digest(), client_key.as_ref());
        let closing = format!("c={},r={nonce}", BASE64.encode(NO_BINDING));
        let conversation = format!("{},{challenge},{closing}", self.opening);
        let signature = self.hash.sign(stored_key.as_ref(), conversation.as_bytes());
        let proof: Vec<u8> = std::iter::zip(client_key.as_ref(), signature.as_ref())
            .map(|(key, signature)| key ^ signature)
            .collect();

        let server_key = self.hash.sign(&salted, b"Server Key");
        let expected = Proof {
            key: hmac::Key::new(self.hash.hmac(), server_key.as_ref()),
            conversation,
        };
        Ok((format!("{closing},p={}", BASE64.encode(proof)), expected))
    }
}

impl Proof {
    /// Whether the broker's last message is that of one who knows the password.
    pub(crate) fn check(&self, last: &str) -> Result<(), ScramError> {
        if let Ok(reason) = attribute(last, "e=") {
            return Err(ScramError::Refused(reason.to_owned()));
        }
        let signature = BASE64.decode(attribute(last, "v=")?);
        let signature = signature.map_err(|_| ScramError::Malformed("signature"))?;
        hmac::verify(&self.key, self.conversation.as_bytes(), &signature).map_err(|_| ScramError::NotTheBroker)
    }
}

fn attribute<'a>(message: &'a str, name: &'static str) -> Result<&'a str, ScramError> {
    message
        .split(',')
        .find_map(|part| part.strip_prefix(name))
        .ok_or(ScramError::Malformed(match name {
            "r=" => "nonce",
            "s=" => "salt",
            "i=" => "number of rounds",
            _ => "signature",
        }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONCE: &str = "rOprNGfwEbeRWgbNEkqO";
    const CHALLENGE: &str = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";

    fn login() -> Login {
        Login::begin(Hash::Sha256, "user", "pencil", NONCE.to_owned())
    }

    /// The conversation in RFC 7677, section 3.
    #[test]
    fn the_conversation_of_the_rfc_comes_out() {
        let login = login();
        assert_eq!(login.first(), format!("n,,n=user,r={NONCE}"));
        let (answer, proof) = login.answer(CHALLENGE).unwrap();
        assert_eq!(
            answer,
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
        );
        assert_eq!(proof.check("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="), Ok(()));
    }

    #[test]
    fn a_broker_that_does_not_know_the_password_is_found_out() {
        let (_, proof) = login().answer(CHALLENGE).unwrap();
        let forged = format!("v={}", BASE64.encode([7; 32]));
        assert_eq!(proof.check(&forged), Err(ScramError::NotTheBroker));
        assert_eq!(proof.check("v="), Err(ScramError::NotTheBroker));
        assert_eq!(proof.check("nothing"), Err(ScramError::Malformed("signature")));
        let refused = proof.check("e=invalid-proof");
        assert_eq!(refused, Err(ScramError::Refused("invalid-proof".to_owned())));
    }

    #[test]
    fn challenges_that_would_weaken_or_stall_are_refused() {
        let refused = |challenge: &str| login().answer(challenge).err();
        let salt = "s=W22ZaJ0SNY7soEsUEjb6gQ==";
        assert_eq!(refused(&format!("r={NONCE}x,{salt},i=1")), Some(ScramError::Rounds(1)));
        assert_eq!(
            refused(&format!("r={NONCE}x,{salt},i=4000000000")),
            Some(ScramError::Rounds(4_000_000_000))
        );
        assert_eq!(
            refused(&format!("r={NONCE},{salt},i=4096")),
            Some(ScramError::Malformed("nonce"))
        );
        assert_eq!(
            refused(&format!("r=another,{salt},i=4096")),
            Some(ScramError::Malformed("nonce"))
        );
        assert_eq!(
            refused(&format!("r={NONCE}x,i=4096")),
            Some(ScramError::Malformed("salt"))
        );
    }

    #[test]
    fn a_name_with_the_protocols_own_signs_is_escaped() {
        let login = Login::begin(Hash::Sha512, "a=b,c", "x", NONCE.to_owned());
        assert_eq!(login.first(), format!("n,,n=a=3Db=2Cc,r={NONCE}"));
    }
}
