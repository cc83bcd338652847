//! A real Chromium, driven by its own driver as the `WebDriver` specification says.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use base64::prelude::{BASE64_STANDARD, Engine};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::{Value, json};

/// How long a page may take to become what a test waits for.
const PATIENCE: Duration = Duration::from_mins(1);

/// A browser with one window; dropped, it is closed.
pub(crate) struct Browser {
    driver: Child,
    http: reqwest::Client,
    session: String,
}

impl Browser {
    /// Nothing, where there is none.
    pub(crate) async fn open() -> Option<Self> {
        #[expect(
            clippy::disallowed_methods,
            reason = "a test starts what it looks through"
        )]
        let mut driver = std::process::Command::new("chromedriver")
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .ok()?;
        let said = BufReader::new(driver.stdout.take().expect("it is piped"));
        let port = said.lines().map_while(Result::ok).find_map(|line| {
            let port = line.split("successfully on port ").nth(1)?;
            Some(port.trim_end_matches('.').to_owned())
        });
        // The client's crypto has no default where several could be.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut browser = Self {
            driver,
            http: reqwest::Client::builder()
                .no_proxy()
                .build()
                .expect("it needs nothing"),
            session: format!("http://127.0.0.1:{}/session", port?),
        };
        let arguments = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--window-size=1300,1000",
        ];
        let wanted = json!({ "capabilities": { "alwaysMatch": { "goog:chromeOptions": { "args": arguments } } } });
        let opened = browser.post("", &wanted).await;
        let id = opened["sessionId"].as_str().expect("it opens a window");
        browser.session = format!("{}/{id}", browser.session);
        Some(browser)
    }

    pub(crate) async fn visit(&self, url: &str) {
        self.post("/url", &json!({ "url": url })).await;
    }

    /// What a line of JavaScript gives.
    pub(crate) async fn eval(&self, script: &str) -> Value {
        let script = format!("return ({script})");
        self.post("/execute/sync", &json!({ "script": script, "args": [] }))
            .await
    }

    /// Waits until a line of JavaScript gives this.
    pub(crate) async fn until(&self, script: &str, wanted: impl Into<Value>) {
        let (started, wanted) = (Instant::now(), wanted.into());
        loop {
            let is = self.eval(script).await;
            if is == wanted {
                return;
            }
            assert!(
                started.elapsed() < PATIENCE,
                "{script} is {is}, not {wanted}"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Presses keys, one after the other, wherever the focus is.
    pub(crate) async fn press(&self, keys: &str) {
        let press = |key| {
            [
                json!({ "type": "keyDown", "value": key }),
                json!({ "type": "keyUp", "value": key }),
            ]
        };
        let actions: Vec<_> = keys.chars().map(String::from).flat_map(press).collect();
        let keyboard = json!({ "type": "key", "id": "keyboard", "actions": actions });
        self.post("/actions", &json!({ "actions": [keyboard] }))
            .await;
    }

    /// Makes the page believe that its reader prefers `dark` or `light`.
    pub(crate) async fn prefer(&self, scheme: &str) {
        let feature = json!({ "name": "prefers-color-scheme", "value": scheme });
        let command =
            json!({ "cmd": "Emulation.setEmulatedMedia", "params": { "features": [feature] } });
        self.post("/goog/cdp/execute", &command).await;
    }

    /// The window as a PNG.
    pub(crate) async fn screenshot(&self) -> Vec<u8> {
        let answer = self
            .http
            .get(format!("{}/screenshot", self.session))
            .send()
            .await;
        let answer = answer
            .expect("the driver lives")
            .text()
            .await
            .expect("it answers");
        let answer: Value = serde_json::from_str(&answer).expect("it speaks JSON");
        let picture = answer["value"].as_str().expect("it is text");
        BASE64_STANDARD.decode(picture).expect("it is base64")
    }

    async fn post(&self, path: &str, body: &Value) -> Value {
        let request = self
            .http
            .post(format!("{}{path}", self.session))
            .body(body.to_string());
        let answer = request.send().await.expect("the driver lives");
        let good = answer.status().is_success();
        let text = answer.text().await.expect("it answers");
        assert!(good, "{path}: {text}");
        let answer: Value = serde_json::from_str(&text).expect("it speaks JSON");
        answer["value"].clone()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The driver ends its browser when it is asked to end, not when it is killed.
        let driver = Pid::from_child(&self.driver);
        let _ = kill_process(driver, Signal::TERM);
        let _ = self.driver.wait();
        // On a busy machine it ends before its browser does.
        let _ = kill_process_group(driver, Signal::KILL);
    }
}
