//! Several worker processes on one database.

use std::time::Duration;

use anyhow::{Result, ensure};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use todo_e2e::client::{self, Client};
use todo_e2e::load::{self, Load};
use todo_e2e::process::Process;
use todo_e2e::scene::{Scene, free_port};
use todo_e2e::{check, database};

use crate::faults::{make_schedules, pause_schedules, something_of_everything_happened};

const SECRET: &str = "a secret of at least thirty-two bytes";
const WORKERS: usize = 3;
const KILLS: u32 = 8;

#[tokio::test(flavor = "multi_thread")]
async fn three_workers_on_one_database_do_the_work_once() -> Result<()> {
    let seed = load::seed("three_workers");
    let mut random = StdRng::seed_from_u64(!seed);
    let scene = Scene::new()?;
    let url = database::fresh().await?;
    scene.run_well(["migrate", "--database-url", &url]).await?;
    let listen = format!("127.0.0.1:{}", free_port()?);
    let base = format!("http://{listen}");
    let api_args = [
        "api",
        "--database-url",
        &url,
        "--listen",
        &listen,
        "--token-secret",
        SECRET,
    ];
    let mut api = scene.start("api", api_args)?;
    let worker = |name: &str| scene.start(name, ["worker", "--listen", "127.0.0.1:0", "--database-url", &url]);
    let mut workers: Vec<Process> = (0..WORKERS)
        .map(|number| worker(&format!("worker-{number}")))
        .collect::<Result<_>>()?;
    client::wait_until_ready(&base).await?;
    let mut users = Vec::new();
    for number in 0..12 {
        let token = scene
            .run_well(["token", "--user", &format!("user-{number}"), "--secret", SECRET])
            .await?;
        users.push(Client::new(&base, token.trim())?);
    }
    make_schedules(&users).await?;

    let load = Load::start(users, 6, seed);
    for nth in 0..KILLS {
        tokio::time::sleep(Duration::from_millis(random.random_range(500..2500))).await;
        let victim = &mut workers[random.random_range(0..WORKERS)];
        ensure!(
            victim.ended()?.is_none(),
            "a worker ended by itself: {}",
            victim.stderr()
        );
        victim.kill()?;
        *victim = worker(&format!("worker-again-{nth}"))?;
    }
    let (ledger, users) = load.finish().await?;
    pause_schedules(&users).await?;

    let pool = database::open(&url).await?;
    check::wait_until_quiet(&pool, Duration::from_secs(40)).await?;
    check::promises(&pool).await?;
    let (occurrences, skipped) = check::schedules_are_complete(&pool).await?;
    let held = ledger.check(&pool, &users).await?;
    println!("{held:?}; {occurrences} occurrences, {skipped} skipped");
    ensure!(
        held.lost_answers == 0,
        "nobody touched the API, yet {} answers were lost",
        held.lost_answers
    );
    ensure!(skipped > 0, "nothing was skipped");
    something_of_everything_happened(&pool).await?;
    for process in workers.iter_mut().chain([&mut api]) {
        let status = process.stop().await?;
        ensure!(status.success(), "it stopped with {status}: {}", process.stderr());
    }
    Ok(())
}
