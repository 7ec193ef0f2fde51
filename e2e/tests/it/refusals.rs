//! What `todo up` refuses: one clear line for each mistake, exit code 2, and nothing changed.

use std::net::TcpListener;

use anyhow::{Result, ensure};
use todo_e2e::database;
use todo_e2e::scene::{Scene, is_untouched};

const PLATFORM: &str = "apiVersion: todoplatform.dev/v1alpha1
kind: TodoPlatform
metadata: {name: home}
spec: {version: \"0.1.0\"}
";

/// Runs `todo up` with these arguments, which must be refused with exactly these lines; each is given by its parts.
async fn refused(scene: &Scene, args: &[&str], lines: &[&[&str]]) -> Result<()> {
    let data_dir = scene.data_dir().display().to_string();
    let mut all = vec!["up", "--data-dir", data_dir.as_str()];
    all.extend(args);
    let output = scene.run(all).await?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.code() == Some(2),
        "{args:?} ended with {}: {said}",
        output.status
    );
    ensure!(
        output.stdout.is_empty(),
        "{args:?} printed {}",
        String::from_utf8_lossy(&output.stdout)
    );
    ensure!(said.lines().count() == lines.len(), "{args:?} said: {said}");
    for (line, parts) in said.lines().zip(lines) {
        for part in *parts {
            ensure!(line.contains(part), "{part:?} is not in {line:?}");
        }
    }
    ensure!(is_untouched(&scene.data_dir()), "{args:?} changed the data folder");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_is_in_use_is_refused() -> Result<()> {
    let scene = Scene::new()?;
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let address = taken.local_addr()?.to_string();
    refused(&scene, &["--listen", &address], &[&[&address, "is in use", "--listen"]]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn manifests_with_mistakes_are_refused_with_file_line_and_field() -> Result<()> {
    let scene = Scene::new()?;
    let listen = ["--listen", "127.0.0.1:0"];
    let with = |args: &[&'static str]| [&listen[..], args].concat();

    refused(
        &scene,
        &with(&["-f", "nowhere.yaml"]),
        &[&["nowhere.yaml", "cannot be read"]],
    )
    .await?;

    refused(&scene, &with(&["-f", "."]), &[&[".: cannot be read", "directory"]]).await?;

    scene.write("unknown.yaml", &PLATFORM.replace("spec: {", "spec: {colour: blue, "))?;
    refused(&scene, &with(&["-f", "unknown.yaml"]), &[&["unknown.yaml:4", "colour"]]).await?;

    scene.write("no-yaml.yaml", "spec: [1, 2\n")?;
    refused(&scene, &with(&["-f", "no-yaml.yaml"]), &[&["no-yaml.yaml:"]]).await?;

    let two_mistakes = format!(
        "{PLATFORM}---
apiVersion: todoplatform.dev/v1alpha1
kind: RecurringSchedule
metadata: {{name: never}}
spec:
  platformRef: {{name: home}}
  user: alice
  schedule: {{cron: \"0 0 30 2 *\"}}
  template: {{title: Never}}
---
apiVersion: todoplatform.dev/v1alpha1
kind: RecurringSchedule
metadata: {{name: nowhere}}
spec:
  platformRef: {{name: home}}
  user: alice
  schedule: {{every: 1d}}
  timeZone: Europe/Atlantis
  template: {{title: Nowhere}}
"
    );
    scene.write("two.yaml", &two_mistakes)?;
    let lines: [&[&str]; 2] = [&["two.yaml:12", "cron"], &["two.yaml:22", "timeZone", "Atlantis"]];
    refused(&scene, &with(&["-f", "two.yaml"]), &lines).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_newer_than_the_binary_is_refused() -> Result<()> {
    let scene = Scene::new()?;
    let url = database::fresh().await?;
    scene.run_well(["migrate", "--database-url", &url]).await?;
    let pool = database::open(&url).await?;
    sqlx::query(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (9999, 'from the future', TRUE, '', 0)",
    )
    .execute(&pool)
    .await?;
    scene.write(
        "platform.yaml",
        &format!(
            "{PLATFORM}---
apiVersion: todoplatform.dev/v1alpha1
kind: RecurringSchedule
metadata: {{name: daily}}
spec: {{platformRef: {{name: home}}, user: alice, schedule: {{every: 1d}}, template: {{title: Daily}}}}
"
        ),
    )?;
    let args = ["--listen", "127.0.0.1:0", "-f", "platform.yaml", "--database-url", &url];
    refused(&scene, &args, &[&["9999", "newer"]]).await?;
    let schedules: i64 = sqlx::query_scalar("SELECT count(*) FROM schedules")
        .fetch_one(&pool)
        .await?;
    ensure!(schedules == 0, "it made a schedule");

    let migrate = scene.run(["migrate", "--database-url", &url]).await?;
    ensure!(
        migrate.status.code() == Some(2),
        "`todo migrate` ended with {}",
        migrate.status
    );
    Ok(())
}
