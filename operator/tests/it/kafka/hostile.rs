//! Whoever answers at an address that a manifest names cannot stall or end the operator, or make it tell a password.
//!
//! No real broker does these things: here a few lines answer in its place.

use std::time::{Duration, Instant};

use todo_crds::platform::SaslMechanism;
use todo_operator::kafka::{Admin, KafkaError, Settings};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::broker::sasl;

/// Answers each request with the next of `answers`, each behind its length and the request's number; then says nothing.
async fn somebody(answers: Vec<Vec<u8>>) -> Settings {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        for answer in answers {
            let length = stream.read_u32().await.unwrap();
            let mut request = vec![0; usize::try_from(length).unwrap()];
            stream.read_exact(&mut request).await.unwrap();
            let length = u32::try_from(answer.len() + 4).unwrap();
            stream.write_u32(length).await.unwrap();
            stream.write_all(&request[4..8]).await.unwrap();
            stream.write_all(&answer).await.unwrap();
        }
        std::future::pending::<()>().await;
    });
    Settings {
        brokers: vec![address],
        tls: None,
        sasl: Some(sasl(SaslMechanism::Plain, ("platform", "my-own-secret"))),
        timeout: Duration::from_secs(1),
    }
}

/// Success, and that it knows every request.
fn knows_everything() -> Vec<u8> {
    let mut answer = 0_i16.to_be_bytes().to_vec();
    answer.extend(50_i32.to_be_bytes());
    for request in 0..50_i16 {
        for number in [request, 0, 99] {
            answer.extend(number.to_be_bytes());
        }
    }
    answer
}

#[tokio::test]
async fn an_answer_that_claims_billions_of_items_is_no_answer() {
    let mut claims = 0_i16.to_be_bytes().to_vec();
    claims.extend(i32::MAX.to_be_bytes());
    let error = Admin::connect(&somebody(vec![claims]).await).await.unwrap_err();
    assert!(matches!(error, KafkaError::NotKafka { .. }), "{error:?}");
}

#[tokio::test]
async fn an_answer_of_gigabytes_is_not_waited_for() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let settings = Settings {
        brokers: vec![listener.local_addr().unwrap().to_string()],
        ..somebody(Vec::new()).await
    };
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        // What a web server says.
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        std::future::pending::<()>().await;
    });
    let error = Admin::connect(&settings).await.unwrap_err();
    assert!(matches!(error, KafkaError::NotKafka { .. }), "{error:?}");
}

#[tokio::test]
async fn silence_ends_with_the_time_that_was_given() {
    let settings = somebody(Vec::new()).await;
    let began = Instant::now();
    let error = Admin::connect(&settings).await.unwrap_err();
    assert!(matches!(error, KafkaError::TimedOut { .. }), "{error:?}");
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_broker_that_repeats_the_password_does_not_get_it_into_an_error() {
    let offered = [0, 0, 0, 0, 0, 0].to_vec();
    let mut repeats = 58_i16.to_be_bytes().to_vec();
    let words = "platform may not log in with my-own-secret";
    repeats.extend(u16::try_from(words.len()).unwrap().to_be_bytes());
    repeats.extend(words.bytes());
    let settings = somebody(vec![knows_everything(), offered, repeats]).await;
    let error = Admin::connect(&settings).await.unwrap_err();
    let said = format!("{error} {error:?}");
    assert!(
        said.contains("may not log in with ***") && !said.contains("my-own-secret"),
        "{said}"
    );
}

#[tokio::test]
async fn a_broker_that_cannot_do_what_is_needed_is_said_to_be_too_old() {
    let mut knows_little = 0_i16.to_be_bytes().to_vec();
    knows_little.extend(0_i32.to_be_bytes());
    let settings = Settings {
        sasl: None,
        ..somebody(vec![knows_little]).await
    };
    let error = Admin::connect(&settings).await.unwrap_err();
    assert!(matches!(error, KafkaError::Unsupported { .. }), "{error:?}");
}
