//! One connection to one broker: TCP or TLS, the login, and then one request after the other.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use ring::rand::{SecureRandom as _, SystemRandom};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use todo_crds::platform::SaslMechanism;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::error::{KafkaError, Refusal, code, one_line};
use super::messages::{ApiVersions, Request, SaslAuthenticate, SaslHandshake, Served};
use super::scram::{Hash, Login, ScramError};
use super::settings::{Sasl, Settings, Tls, mechanism_name};
use super::wire::{Malformed, Reader, Writer};

/// Who the broker sees in its logs.
const CLIENT: &str = "todo-operator";

/// No answer to what is asked here is longer: a thousand partitions on seven brokers each are 100 kB.
const LONGEST_ANSWER: usize = 8 << 20;

trait Transport: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Transport for T {}

/// A connection that is logged in.
pub(crate) struct Connection {
    /// `host:port` of the broker.
    broker: String,
    transport: Box<dyn Transport>,
    served: Served,
    last_request: i32,
    timeout: Duration,
}

/// How connections to all brokers of a cluster are made.
pub(crate) struct Dialer {
    tls: Option<TlsConnector>,
    sasl: Option<Sasl>,
    timeout: Duration,
}

impl Dialer {
    pub(crate) fn new(settings: &Settings) -> Result<Self, KafkaError> {
        Ok(Self {
            tls: settings.tls.as_ref().map(connector).transpose()?,
            sasl: settings.sasl.clone(),
            timeout: settings.timeout,
        })
    }

    /// A connection to this broker, ready for requests.
    pub(crate) async fn dial(&self, broker: &str) -> Result<Connection, KafkaError> {
        let connected = tokio::time::timeout(self.timeout, self.dial_unhurried(broker)).await;
        connected.unwrap_or_else(|_| Err(self.timed_out(broker, "accept a connection and a login")))
    }

    async fn dial_unhurried(&self, broker: &str) -> Result<Connection, KafkaError> {
        let (host, port) = host_and_port(broker)?;
        let unreachable = |error: std::io::Error| KafkaError::Unreachable {
            broker: broker.to_owned(),
            reason: one_line(&error.to_string()),
        };
        let stream = TcpStream::connect((host, port)).await.map_err(unreachable)?;
        // Requests are small and wait for their answers.
        stream.set_nodelay(true).map_err(unreachable)?;
        let transport: Box<dyn Transport> = match &self.tls {
            None => Box::new(stream),
            Some(connector) => {
                let tls_error = |reason: String| KafkaError::Tls {
                    broker: broker.to_owned(),
                    reason: one_line(&reason),
                };
                let name = ServerName::try_from(host.to_owned()).map_err(|error| tls_error(error.to_string()))?;
                let handshake = connector.connect(name, stream).await;
                Box::new(handshake.map_err(|error| tls_error(error.to_string()))?)
            }
        };
        let mut connection = Connection {
            broker: broker.to_owned(),
            transport,
            served: Served::default(),
            last_request: 0,
            timeout: self.timeout,
        };
        let (error, served) = connection.exchange(&ApiVersions).await?;
        if let Some(refusal) = Refusal::of(error, None) {
            return Err(connection.refused::<ApiVersions>(refusal));
        }
        connection.served = served;
        if let Some(sasl) = &self.sasl {
            connection.log_in(sasl).await?;
        }
        Ok(connection)
    }

    fn timed_out(&self, broker: &str, doing: &'static str) -> KafkaError {
        KafkaError::TimedOut {
            broker: broker.to_owned(),
            doing,
            seconds: self.timeout.as_secs(),
        }
    }
}

impl Connection {
    /// `host:port` of the broker.
    pub(crate) fn broker(&self) -> &str {
        &self.broker
    }

    /// How long a broker may take over what it is asked, in milliseconds: less than the answer is waited for.
    pub(crate) fn patience_ms(&self) -> i32 {
        i32::try_from(self.timeout.as_millis() * 4 / 5).unwrap_or(i32::MAX)
    }

    /// The answer to a request. After an error the connection is of no use.
    pub(crate) async fn call<R: Request>(&mut self, request: &R) -> Result<R::Answer, KafkaError> {
        if !self.served.has::<R>() {
            return Err(KafkaError::Unsupported {
                broker: self.broker.clone(),
                doing: R::DOING,
            });
        }
        let (timeout, broker) = (self.timeout, self.broker.clone());
        let answered = tokio::time::timeout(timeout, self.exchange(request)).await;
        answered.unwrap_or_else(|_| {
            Err(KafkaError::TimedOut {
                broker,
                doing: R::DOING,
                seconds: timeout.as_secs(),
            })
        })
    }

    pub(crate) fn refused<R: Request>(&self, refusal: Refusal) -> KafkaError {
        KafkaError::Refused {
            broker: self.broker.clone(),
            doing: R::DOING,
            refusal,
        }
    }

    fn not_kafka(&self, what: &'static str) -> KafkaError {
        KafkaError::NotKafka {
            broker: self.broker.clone(),
            what,
        }
    }

    async fn exchange<R: Request>(&mut self, request: &R) -> Result<R::Answer, KafkaError> {
        self.last_request += 1;
        let mut writer = Writer::default();
        writer.i16(R::KEY);
        writer.i16(R::VERSION);
        writer.i32(self.last_request);
        writer.text(CLIENT);
        request.write(&mut writer);
        let hung_up = |_: std::io::Error| KafkaError::Closed {
            broker: self.broker.clone(),
            doing: R::DOING,
        };
        self.transport.write_all(&writer.into_frame()).await.map_err(hung_up)?;
        self.transport.flush().await.map_err(hung_up)?;

        let length = self.transport.read_u32().await.map_err(hung_up)?;
        let length = usize::try_from(length).ok().filter(|length| *length <= LONGEST_ANSWER);
        let length = length.ok_or_else(|| self.not_kafka("the length of its answer"))?;
        // Room is made as the bytes come, not as they are promised.
        let mut answer = Vec::new();
        let mut body = (&mut self.transport).take(length as u64);
        body.read_to_end(&mut answer).await.map_err(|_| KafkaError::Closed {
            broker: self.broker.clone(),
            doing: R::DOING,
        })?;
        let mut reader = Reader::new(&answer);
        let correlation = reader.i32();
        if correlation != Ok(self.last_request) {
            return Err(self.not_kafka("which request it answers"));
        }
        R::read(&mut reader).map_err(|Malformed(what)| self.not_kafka(what))
    }

    async fn log_in(&mut self, sasl: &Sasl) -> Result<(), KafkaError> {
        let mechanism = mechanism_name(sasl.mechanism);
        let offered = self.exchange(&SaslHandshake(mechanism)).await?;
        if let Some(refusal) = Refusal::of(offered.error, None) {
            if refusal.code != code::UNSUPPORTED_SASL_MECHANISM {
                return Err(self.refused::<SaslHandshake>(refusal));
            }
            return Err(KafkaError::Mechanism {
                broker: self.broker.clone(),
                asked: mechanism,
                offered: one_line(&offered.mechanisms.join(", ")),
            });
        }
        match sasl.mechanism {
            SaslMechanism::Plain => self.log_in_plain(sasl).await,
            SaslMechanism::ScramSha256 => self.log_in_scram(sasl, Hash::Sha256).await,
            SaslMechanism::ScramSha512 => self.log_in_scram(sasl, Hash::Sha512).await,
        }
    }

    /// RFC 4616.
    async fn log_in_plain(&mut self, sasl: &Sasl) -> Result<(), KafkaError> {
        let message = format!("\0{}\0{}", sasl.username, sasl.password);
        self.tell(sasl, message.as_bytes()).await.map(drop)
    }

    async fn log_in_scram(&mut self, sasl: &Sasl, hash: Hash) -> Result<(), KafkaError> {
        let mut nonce = [0; 24];
        let drawn = SystemRandom::new().fill(&mut nonce);
        drawn.map_err(|_| self.login_refused("this system gives no random numbers".to_owned()))?;
        let login = Login::begin(hash, &sasl.username, &sasl.password, BASE64.encode(nonce));
        let challenge = self.tell(sasl, login.first().as_bytes()).await?;
        // Thousands of rounds of hashing are no work for a thread that others wait for.
        let hashed = tokio::task::spawn_blocking(move || login.answer(&challenge)).await;
        let hashed = hashed.map_err(|_| self.login_refused("this process is ending".to_owned()))?;
        let (answer, proof) = hashed.map_err(|error| self.scram_refused(sasl, &error))?;
        let last = self.tell(sasl, answer.as_bytes()).await?;
        proof.check(&last).map_err(|error| self.scram_refused(sasl, &error))
    }

    /// What the broker says to one message of a login.
    async fn tell(&mut self, sasl: &Sasl, message: &[u8]) -> Result<String, KafkaError> {
        let answer = self.exchange(&SaslAuthenticate(message)).await?;
        let answer = answer.map_err(|refusal| self.login_refused(sasl.without_password(&refusal.to_string())))?;
        String::from_utf8(answer).map_err(|_| self.not_kafka("a message of the login"))
    }

    fn scram_refused(&self, sasl: &Sasl, error: &ScramError) -> KafkaError {
        self.login_refused(sasl.without_password(&one_line(&error.to_string())))
    }

    fn login_refused(&self, reason: String) -> KafkaError {
        KafkaError::Login {
            broker: self.broker.clone(),
            reason,
        }
    }
}

/// `host:port`, with an IPv6 address in brackets.
fn host_and_port(broker: &str) -> Result<(&str, u16), KafkaError> {
    let parsed = broker.rsplit_once(':').and_then(|(host, port)| {
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = bare.unwrap_or(host);
        let is_ambiguous = bare.is_none() && host.contains(':');
        let port = port.parse().ok().filter(|port| *port != 0)?;
        (!host.is_empty() && !is_ambiguous).then_some((host, port))
    });
    parsed.ok_or_else(|| KafkaError::Address {
        broker: one_line(broker),
    })
}

fn connector(tls: &Tls) -> Result<TlsConnector, KafkaError> {
    let mut trusted = RootCertStore::empty();
    match tls {
        Tls::PublicAuthorities => {
            trusted.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if trusted.is_empty() {
                return Err(KafkaError::NoPublicAuthorities);
            }
        }
        Tls::Authorities(pem) => {
            let unusable = |reason: String| KafkaError::CertificateAuthority {
                reason: one_line(&reason),
            };
            for certificate in CertificateDer::pem_slice_iter(pem) {
                let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
                trusted.add(certificate).map_err(|error| unusable(error.to_string()))?;
            }
            if trusted.is_empty() {
                return Err(unusable("it holds no certificate".to_owned()));
            }
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring has cipher suites for TLS 1.2 and 1.3")
        .with_root_certificates(trusted)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_a_host_and_a_port() {
        let read = |text| host_and_port(text).ok();
        assert_eq!(read("kafka.example.com:9093"), Some(("kafka.example.com", 9093)));
        assert_eq!(read("[2001:db8::1]:9092"), Some(("2001:db8::1", 9092)));
        for wrong in [
            "kafka",
            "kafka:",
            ":9092",
            "kafka:0",
            "kafka:99999",
            "2001:db8::1:9092",
            "",
        ] {
            let error = host_and_port(wrong).unwrap_err().to_string();
            assert!(error.starts_with("brokers: ") && error.contains("host:port"), "{error}");
        }
    }

    #[test]
    fn an_authority_that_is_no_certificate_is_said_so() {
        let refused = |pem: &[u8]| {
            let error = connector(&Tls::Authorities(pem.to_vec())).err().unwrap();
            error.to_string()
        };
        assert!(refused(b"").contains("holds no certificate"), "{}", refused(b""));
        let broken = refused(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
        assert!(broken.starts_with("certificate authority: "), "{broken}");
    }
}
