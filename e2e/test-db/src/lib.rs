//! A fresh, migrated PostgreSQL database for each test.
//!
//! The migrations run once for each content of `migrations/`, into a template database; a test then
//! gets a copy of it, which takes some tens of milliseconds, and drops it at its end. Tests in parallel,
//! in one process or in many, agree on the template through an advisory lock.
//!
//! Where the server is comes from `TODO_TEST_DATABASE_URL`: the URL of a role that may create databases.
//! Starting such a server is `cargo xtask test`'s work, not this crate's.

use std::path::Path;
use std::time::Duration;

use sqlx::migrate::Migrator;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection, PgPool};
use tokio::sync::OnceCell;
use uuid::Uuid;

/// The environment variable that holds the administrator's URL.
pub const URL_VARIABLE: &str = "TODO_TEST_DATABASE_URL";

/// Advisory lock on the server while a template is made ("todo" in ASCII).
const TEMPLATE_LOCK: i64 = 0x746f_646f;

/// For how long the end of a test waits until its database is gone.
const DROP_PATIENCE: Duration = Duration::from_secs(1);

/// One test's own database. Dropping the value drops the database, with whoever is connected to it.
#[derive(Debug)]
pub struct TestDb {
    /// A pool of at most ten connections.
    pub pool: PgPool,
    /// The URL of this database, for code that connects by itself.
    pub url: String,
    name: String,
    admin: PgConnectOptions,
}

impl TestDb {
    /// Makes a database with all migrations applied and no rows but theirs.
    ///
    /// # Panics
    /// Without a server: a test that cannot run must not look like one that passed.
    pub async fn new() -> Self {
        let admin = admin_options();
        let template = template(&admin).await;
        let name = format!("test_{}", Uuid::now_v7().simple());
        let mut connection = connect(&admin).await;
        execute(&mut connection, format!("CREATE DATABASE {name} TEMPLATE {template}")).await;
        connection
            .close()
            .await
            .expect("closing the administrator's connection");

        let options = admin.clone().database(&name);
        let url = options.to_url_lossy().to_string();
        let pool = PgPoolOptions::new()
            .max_connections(10)
            .connect_with(options)
            .await
            .expect("connecting to the test's database");
        Self { pool, url, name, admin }
    }

    /// This database's URL with server settings for each session, such as `[("lock_timeout", "1s")]`.
    pub fn url_for(&self, settings: &[(&str, &str)]) -> String {
        settings.iter().fold(self.url.clone(), |url, (key, value)| {
            let separator = if url.contains('?') { '&' } else { '?' };
            format!("{url}{separator}options[{key}]={value}")
        })
    }

    /// Another pool on the same database, as another process would have.
    ///
    /// # Panics
    /// When the database does not answer.
    pub async fn another_pool(&self, max_connections: u32) -> PgPool {
        PgPoolOptions::new()
            .max_connections(max_connections)
            .connect(&self.url)
            .await
            .expect("connecting to the test's database")
    }
}

impl Drop for TestDb {
    /// Waits for the database to be gone, or the process could end first. The test's own runtime cannot
    /// be blocked on from inside, so this has one of its own. A failure leaves a database behind, and
    /// must not hide why the test failed.
    ///
    /// Not for long: a pool may be in the middle of a login, which this very wait holds up, and until that has ended the
    /// server drops nothing. It does then, when the test's runtime is gone.
    fn drop(&mut self) {
        let admin = self.admin.clone();
        let statement = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        let (done, is_done) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let dropped = drop_database(&admin, statement);
            // Nobody may wait any more.
            let _ = done.send(dropped.is_ok());
        });
        if is_done.recv_timeout(DROP_PATIENCE) == Ok(false) {
            eprintln!("test database {} could not be dropped", self.name);
        }
    }
}

fn drop_database(admin: &PgConnectOptions, statement: String) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut connection = admin.connect().await?;
        sqlx::query(AssertSqlSafe(statement)).execute(&mut connection).await?;
        connection.close().await?;
        Ok(())
    })
}

fn admin_options() -> PgConnectOptions {
    let url = std::env::var(URL_VARIABLE).unwrap_or_else(|_| {
        panic!(
            "{URL_VARIABLE} is not set: this test needs PostgreSQL. `cargo xtask test` starts one and runs all tests"
        )
    });
    url.parse()
        .unwrap_or_else(|error| panic!("{URL_VARIABLE} is not a PostgreSQL URL: {error}"))
}

async fn connect(options: &PgConnectOptions) -> PgConnection {
    options.connect().await.unwrap_or_else(|error| {
        panic!("cannot connect to {URL_VARIABLE}: {error}. `cargo xtask test` starts PostgreSQL and runs all tests")
    })
}

async fn execute(connection: &mut PgConnection, statement: String) {
    sqlx::query(AssertSqlSafe(statement.clone()))
        .execute(connection)
        .await
        .unwrap_or_else(|error| panic!("{statement}: {error}"));
}

/// The name of the template for today's migrations; made by whoever comes first.
async fn template(admin: &PgConnectOptions) -> &'static str {
    static TEMPLATE: OnceCell<String> = OnceCell::const_new();
    TEMPLATE.get_or_init(|| make_template(admin)).await
}

async fn make_template(admin: &PgConnectOptions) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../migrations");
    let migrator = Migrator::new(folder.as_path()).await.expect("reading the migrations");
    let checksums: Vec<u8> = migrator
        .iter()
        .flat_map(|migration| migration.checksum.to_vec())
        .collect();
    let name = format!(
        "todo_template_{}",
        Uuid::new_v5(&Uuid::NAMESPACE_OID, &checksums).simple()
    );

    let mut connection = connect(admin).await;
    sqlx::query("SELECT pg_advisory_lock($1)")
        .bind(TEMPLATE_LOCK)
        .execute(&mut connection)
        .await
        .expect("locking the template");
    // The mark is set last, so a database of this name without it is one whose migration was interrupted.
    let ready: bool =
        sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1 AND datistemplate)")
            .bind(&name)
            .fetch_one(&mut connection)
            .await
            .expect("looking for the template");
    if !ready {
        execute(&mut connection, format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await;
        execute(&mut connection, format!("CREATE DATABASE {name}")).await;
        let mut fresh = connect(&admin.clone().database(&name)).await;
        migrator.run(&mut fresh).await.expect("applying the migrations");
        fresh.close().await.expect("closing the template's connection");
        // A template that somebody is connected to cannot be copied.
        execute(
            &mut connection,
            format!("ALTER DATABASE {name} WITH IS_TEMPLATE true ALLOW_CONNECTIONS false"),
        )
        .await;
    }
    connection
        .close()
        .await
        .expect("closing the administrator's connection");
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn two_tests_never_see_each_others_rows() {
        let (one, other) = tokio::join!(TestDb::new(), TestDb::new());
        sqlx::query("CREATE TABLE mine (id int)")
            .execute(&one.pool)
            .await
            .expect("creating a table");
        let seen: Option<String> = sqlx::query_scalar("SELECT to_regclass('mine')::text")
            .fetch_one(&other.pool)
            .await
            .expect("looking for the table");
        assert_eq!(seen, None);
    }

    #[tokio::test]
    async fn a_dropped_test_leaves_no_database_behind() {
        let db = TestDb::new().await;
        let name = db.name.clone();
        drop(db);
        let mut connection = connect(&admin_options()).await;
        let left: i64 = sqlx::query_scalar("SELECT count(*) FROM pg_database WHERE datname = $1")
            .bind(&name)
            .fetch_one(&mut connection)
            .await
            .expect("looking for the database");
        assert_eq!(left, 0);
    }

    #[tokio::test]
    async fn settings_in_the_url_reach_the_session() {
        let db = TestDb::new().await;
        let mut connection = PgConnection::connect(&db.url_for(&[("lock_timeout", "1234ms")]))
            .await
            .expect("connecting");
        let timeout: String = sqlx::query_scalar("SHOW lock_timeout")
            .fetch_one(&mut connection)
            .await
            .expect("reading the setting");
        assert_eq!(timeout, "1234ms");
    }
}
