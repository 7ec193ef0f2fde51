//! Settings by flag, environment and file: which one counts, and how a wrong one is refused.

use std::time::Duration;

use anyhow::{Result, ensure};
use todo_e2e::database;
use todo_e2e::process::todo;
use todo_e2e::scene::Scene;

use crate::processes::{SECRET, start};

const PATIENCE: Duration = Duration::from_secs(30);

/// What must never be shown.
const HIDDEN: &str = "hunter2";

/// A command, a setting with a wrong value, and words of the one line that refuses it.
const WRONG: &[(&[&str], &str, &str, &[&str])] = &[
    (
        &["api"],
        "TODO_LISTEN",
        "localhost",
        &["TODO_LISTEN", "--listen", "localhost"],
    ),
    (&["worker"], "TODO_LISTEN", "127.0.0.1:99999", &["TODO_LISTEN", "99999"]),
    (
        &["api"],
        "TODO_DATABASE_CONNECTIONS",
        "0",
        &["TODO_DATABASE_CONNECTIONS", "1..=1000"],
    ),
    (
        &["worker"],
        "TODO_DATABASE_CONNECTIONS",
        "many",
        &["TODO_DATABASE_CONNECTIONS", "many"],
    ),
    (
        &["worker"],
        "TODO_LOG_FORMAT",
        "xml",
        &["TODO_LOG_FORMAT", "text, json"],
    ),
    (&["worker"], "TODO_BUS", "kafka", &["TODO_BUS", "local, dapr"]),
    (
        &["worker"],
        "TODO_SUBSCRIPTIONS",
        "some",
        &["TODO_SUBSCRIPTIONS", "declared, announced"],
    ),
    (&["worker"], "TODO_ALARMS", "yes", &["TODO_ALARMS", "true, false"]),
    (&["worker"], "DAPR_HTTP_PORT", "http", &["DAPR_HTTP_PORT"]),
    (&["worker"], "DAPR_HTTP_ENDPOINT", "nowhere", &["DAPR_HTTP_ENDPOINT"]),
    (
        &["worker"],
        "DATABASE_URL",
        HIDDEN,
        &["DATABASE_URL", "postgres://USER"],
    ),
    (
        &["worker"],
        "DATABASE_URL_FILE",
        HIDDEN,
        &["DATABASE_URL_FILE", "No such file"],
    ),
    (
        &["worker"],
        "DATABASE_URL_REF",
        HIDDEN,
        &["DATABASE_URL_REF", "STORE/NAME/KEY"],
    ),
    (
        &["worker"],
        "DATABASE_URL_REF",
        "postgres://ada:hunter2@db/todo",
        &["DATABASE_URL_REF"],
    ),
    (&["migrate"], "DATABASE_URL", HIDDEN, &["DATABASE_URL"]),
    (
        &["events", "cursors", "list"],
        "DATABASE_URL_FILE",
        HIDDEN,
        &["DATABASE_URL_FILE"],
    ),
    (
        &["api"],
        "TODO_TOKEN_SECRET",
        HIDDEN,
        &["TODO_TOKEN_SECRET", "at least 32 bytes"],
    ),
    (
        &["api"],
        "TODO_OIDC_ISSUER",
        "https://issuer.example",
        &["TODO_OIDC_AUDIENCE"],
    ),
    (&["api"], "TODO_OIDC_AUDIENCE", "todo", &["TODO_OIDC_ISSUER"]),
];

/// What each command has, where it is not what is tried.
fn needed(command: &str, tried: &str, url: &str) -> Vec<(&'static str, String)> {
    let mut needed = vec![("TODO_LISTEN", "127.0.0.1:0".to_owned())];
    if !tried.starts_with("DATABASE_URL") {
        needed.push(("DATABASE_URL", url.to_owned()));
    }
    if command == "api" && !tried.starts_with("TODO_TOKEN") && !tried.starts_with("TODO_OIDC") {
        needed.push(("TODO_TOKEN_SECRET", SECRET.to_owned()));
    }
    needed.retain(|(name, _)| *name != tried);
    needed
}

fn refused(what: &str, output: &std::process::Output, words: &[&str]) -> Result<()> {
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.code() == Some(2),
        "{what} ended with {}: {said}",
        output.status
    );
    ensure!(output.stdout.is_empty(), "{what} printed something");
    ensure!(said.lines().count() == 1, "{what} said {said}");
    ensure!(!said.contains(HIDDEN), "{what} showed a secret: {said}");
    for word in words {
        ensure!(said.contains(word), "{what}: {word:?} is not in {said:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_value_is_refused_at_start_by_its_name_wherever_it_was_given() -> Result<()> {
    let scene = Scene::new()?;
    let url = database::fresh().await?;
    scene.run_well(["migrate", "--database-url", &url]).await?;
    for &(args, name, value, words) in WRONG {
        let needed = needed(args[0], name, &url);
        let mut command = todo(args);
        command.envs(needed.iter().map(|(name, value)| (name, value)));
        command.env(name, value);
        let output = tokio::process::Command::from(command).output().await?;
        refused(&format!("{args:?} with {name} in the environment"), &output, words)?;

        let mut lines = vec![format!("{name}={value}")];
        lines.extend(needed.iter().map(|(name, value)| format!("{name}={value}")));
        let file = scene.write("settings.env", &lines.join("\n"))?;
        let mut command = todo(args);
        command.arg("--settings").arg(&file);
        let output = tokio::process::Command::from(command).output().await?;
        refused(&format!("{args:?} with {name} in the file"), &output, words)?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn mistakes_in_the_file_are_refused_with_their_lines() -> Result<()> {
    let scene = Scene::new()?;
    let file = scene.write(
        "settings.env",
        "# every role\nTODO_LISTN=hunter2\nTODO_SETTINGS=hunter2\nDATABASE_URL=\"hunter2\"\n",
    )?;
    let output = scene.run(["worker", "--settings", &file.display().to_string()]).await?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(2), "it ended with {}", output.status);
    let lines: Vec<&str> = said.lines().collect();
    ensure!(lines.len() == 3 && !said.contains(HIDDEN), "{said}");
    ensure!(
        lines[0].contains("settings.env:2") && lines[0].contains("did you mean TODO_LISTEN?"),
        "{said}"
    );
    ensure!(
        lines[1].contains("settings.env:3: unknown setting TODO_SETTINGS"),
        "{said}"
    );
    ensure!(lines[2].contains("settings.env:4: DATABASE_URL is in quotes"), "{said}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flag_comes_before_the_environment_and_that_before_the_file_that_serves_every_role() -> Result<()> {
    let scene = Scene::new()?;
    let url = database::fresh().await?;
    let file = scene.write(
        "settings.env",
        &format!("DATABASE_URL={url}\nTODO_TOKEN_SECRET={SECRET}\nTODO_LISTEN=127.0.0.2:0\nTODO_ALARMS=false\n"),
    )?;
    let file = file.display().to_string();
    scene.run_well(["migrate", "--settings", &file]).await?;
    let by_file = [("TODO_SETTINGS", file.as_str())];
    let by_environment = [("TODO_SETTINGS", file.as_str()), ("TODO_LISTEN", "127.0.0.3:0")];
    for (name, args, environment, address) in [
        ("by-file", &["worker", "audit"][..], &by_file[..], "127.0.0.2:"),
        ("by-environment", &["worker", "audit"], &by_environment, "127.0.0.3:"),
        (
            "by-flag",
            &["worker", "audit", "--listen", "127.0.0.4:0"],
            &by_environment,
            "127.0.0.4:",
        ),
        ("api", &["api"], &by_file, "127.0.0.2:"),
    ] {
        let mut process = start(&scene, name, args, environment)?;
        let line = process.line_with("is ready", PATIENCE).await?;
        ensure!(line.contains(&format!("http://{address}")), "{name}: {line}");
        ensure!(process.stop().await?.success(), "{name}: {}", process.stderr());
    }
    let help = scene.run_well(["worker", "--help", "--settings", &file]).await?;
    for name in [
        "DATABASE_URL_FILE",
        "DATABASE_URL_REF",
        "TODO_PUBSUB",
        "TODO_ALARMS",
        "APP_API_TOKEN",
        "TODO_SETTINGS",
    ] {
        ensure!(help.contains(name), "{name} is not in the help");
    }
    ensure!(
        !help.contains(&url) && !help.contains(SECRET),
        "the help shows a secret: {help}"
    );
    Ok(())
}
