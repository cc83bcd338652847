//! PostgreSQL in a container: its rows outlive the container, and come back from a snapshot.

use crate::engine::{Engine, with_engine};
use crate::images;
use crate::support::{skipped, until};

/// Starts a server on a volume in a container of this name, and waits until it answers.
fn serve(engine: &Engine, name: &str, volume: &str) {
    let words = "if [ ! -e /data/PG_VERSION ]; then /postgresql/initdb --auth=trust --no-locale -D /data; fi; \
                 exec /postgresql/postgres -D /data -k /tmp -c listen_addresses=";
    engine.docker(&format!(
        "run --detach --network=none --user=999 --name {name} --volume {volume}:/data postgres sh -c -- {words}"
    ));
    let answers = || engine.tries(&query(name, "SELECT 1")).is_ok();
    assert!(until(answers), "{}", engine.docker(&format!("logs {name}")));
}

fn query(name: &str, words: &str) -> String {
    format!("exec {name} /postgresql/psql -h /tmp -U postgres -At -c -- {words}")
}

#[test]
fn rows_outlive_their_container_and_come_back_from_a_snapshot() {
    with_engine("PostgreSQL in Docker", |mut engine| {
        if !images::postgres(&engine) {
            return skipped("PostgreSQL in Docker", "PostgreSQL is not installed");
        }
        let rows =
            |engine: &Engine, name: &str| engine.docker(&query(name, "SELECT count(*) FROM rows"));
        engine.docker("volume create --driver orlop --opt size=256MiB --opt layout=image pgdata");
        serve(&engine, "first", "pgdata");
        engine.docker(&query(
            "first",
            "CREATE TABLE rows AS SELECT generate_series(1, 1000)",
        ));

        // The container is killed in the middle of its work; another finds all that was committed.
        engine.docker("kill first");
        engine.docker("rm first");
        serve(&engine, "second", "pgdata");
        assert_eq!(rows(&engine, "second"), "1000");

        engine.restart();
        engine.docker("start second");
        assert!(until(|| engine.tries(&query("second", "SELECT 1")).is_ok()));
        assert_eq!(rows(&engine, "second"), "1000");

        engine.plugin.orlop("snapshot create default/pgdata before");
        engine.docker(&query("second", "DROP TABLE rows"));
        assert!(engine.tries("volume rm pgdata").is_err());
        engine.docker("volume create --driver orlop --opt from=pgdata@before restored");
        serve(&engine, "third", "restored");
        assert_eq!(rows(&engine, "third"), "1000");
        let gone = engine.tries(&query("second", "SELECT count(*) FROM rows"));
        assert!(gone.is_err_and(|error| error.to_string().contains("does not exist")));

        engine.docker("rm --force second third");
        engine.docker("volume rm pgdata restored");
    });
}
