//! What the cache has, served to its own node, beside nginx with the same file.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::bed::Bed;
use crate::noise::noise;
use crate::report::{Bar, Report, Round, Row};
use crate::{LARGE, MIB};

const ROUNDS: usize = 7;
const NGINX: &str = "127.0.0.1:8099";

pub(crate) async fn measure(report: &mut Report) -> Result<()> {
    if fs::metadata("/usr/sbin/nginx").is_err() {
        report.skip("a local hit beside nginx", "nginx is not installed");
        return Ok(());
    }
    let bed = Bed::of(1, &[LARGE]).await?;
    bed.nodes[0].pull(&bed.digests).await?;
    let place = tempfile::tempdir()?;
    fs::write(place.path().join("blob"), noise(1, LARGE))?;
    let config = place.path().join("nginx.conf");
    fs::write(
        &config,
        format!(
            "daemon off; master_process off; error_log stderr; pid {0}/pid;\nevents {{}}\nhttp {{ access_log off; \
             sendfile on; server {{ listen {NGINX}; root {0}; }} }}\n",
            place.path().display()
        ),
    )?;
    #[expect(clippy::disallowed_methods, reason = "it is another's process")]
    let mut nginx = Command::new("ip")
        .args(["netns", "exec", &bed.nodes[0].link.namespace, "nginx", "-c"])
        .arg(&config)
        .stderr(Stdio::null())
        .spawn()?;
    let measured = beside(report, &bed).await;
    // One that has ended by itself is as good.
    let _ = nginx.kill();
    nginx.wait()?;
    measured
}

async fn beside(report: &mut Report, bed: &Bed) -> Result<()> {
    let path = format!("/v2/a/b/blobs/{}?ns=registry.test", bed.digests[0]);
    let read = |at: &'static str, path: &str, connections| {
        let path = path.to_owned();
        bed.nodes[0]
            .link
            .spawn(async move { together(at, &path, connections).await })
    };
    for _ in 0..100 {
        if read(NGINX, "/blob", 1).await?.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for connections in [1, 16] {
        let mut rounds = Vec::new();
        for _ in 0..ROUNDS {
            let floor = read(NGINX, "/blob", connections).await??;
            let ours = read("127.0.0.1:5052", &path, connections).await??;
            rounds.push(Round { ours, floor });
        }
        report.add(Row {
            what: "a local hit",
            case: format!("{connections} connections, 64 MiB each"),
            floor: "nginx with the same file",
            unit: "MiB/s",
            bar: Bar::Gain(1.0),
            rounds,
        });
    }
    Ok(())
}

/// How many MiB a second come through so many connections at once.
#[expect(clippy::cast_precision_loss, reason = "some megabytes")]
async fn together(at: &'static str, path: &str, connections: usize) -> Result<f64> {
    let begun = Instant::now();
    let reads = (0..connections).map(|_| tokio::spawn(whole(at, path.to_owned())));
    for read in reads.collect::<Vec<_>>() {
        read.await??;
    }
    let all = (connections * LARGE / MIB) as f64;
    Ok(all / begun.elapsed().as_secs_f64())
}

/// Reads one body, and looks at nothing in it.
async fn whole(at: &str, path: String) -> Result<()> {
    let mut stream = TcpStream::connect(at).await?;
    let ask = format!("GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n");
    stream.write_all(ask.as_bytes()).await?;
    let (mut buffer, mut read) = (vec![0; 256 << 10], 0);
    loop {
        match stream.read(&mut buffer).await.context("reading")? {
            0 => break,
            more => read += more,
        }
    }
    ensure!(read >= LARGE, "only {read} bytes came");
    Ok(())
}
