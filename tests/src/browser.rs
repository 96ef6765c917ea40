//! A headless Chromium, driven over its WebDriver.

use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, TcpStream},
    process::{Command, Stdio},
    time::Duration,
};

use serde_json::{Value, json};

use crate::{Process, poll};

const DRIVER: &str = "chromedriver";
const BROWSER: &str = "chromium";
/// How long a browser may take to end, so that a test that failed ends as well.
const END_WAIT: Duration = Duration::from_secs(10);

/// A browser with one window and a profile of its own. It ends when this is dropped.
#[derive(Debug)]
pub struct Browser {
    http: reqwest::Client,
    port: u16,
    session: String,
    _driver: Process,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// What is missing on this machine to have one.
    pub fn missing() -> Option<String> {
        let lacks = |program: &&str| {
            let mut command = Command::new(program);
            let run = command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
            !run.is_ok_and(|status| status.success())
        };
        let program = [DRIVER, BROWSER].into_iter().find(lacks)?;
        Some(format!("there is no {program}; on Debian install chromium and chromium-driver"))
    }

    /// Starts one.
    pub async fn start() -> Self {
        let profile = tempfile::tempdir().expect("a temporary directory");
        let log = profile.path().join("driver.log");
        let mut command = Command::new(DRIVER);
        command.arg("--port=0");
        let driver = Process::start(command, &log);
        let port = poll("the browser's driver", || async {
            let said = fs::read_to_string(&log).ok()?;
            said.split_once("successfully on port ")?.1.split_once('.')?.0.parse().ok()
        })
        .await;
        let user_data = format!("--user-data-dir={}", profile.path().join("profile").display());
        let http = reqwest::Client::builder().no_proxy().build().expect("an HTTP client");
        let mut browser = Self { http, port, session: String::new(), _driver: driver, _profile: profile };
        let arguments = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--window-size=1300,900",
            &user_data,
        ];
        let wanted = json!({
            "goog:chromeOptions": { "args": arguments },
            "goog:loggingPrefs": { "browser": "ALL", "performance": "ALL" },
        });
        let session = browser.post("session", json!({ "capabilities": { "alwaysMatch": wanted } })).await;
        session["sessionId"].as_str().expect("a session").clone_into(&mut browser.session);
        browser
    }

    /// Opens a page and waits until it is loaded.
    pub async fn open(&self, url: &str) {
        self.command("url", json!({ "url": url })).await;
    }

    /// Runs the body of a function with these `arguments`, and returns what it returns or promises.
    pub async fn run(&self, body: &str, arguments: &[Value]) -> Value {
        self.command("execute/sync", json!({ "script": body, "args": arguments })).await
    }

    /// Moves the mouse to a place in the window and clicks.
    pub async fn click(&self, x: i64, y: i64) {
        let mouse = [
            json!({ "type": "pointerMove", "duration": 0, "x": x, "y": y }),
            json!({ "type": "pointerDown", "button": 0 }),
            json!({ "type": "pointerUp", "button": 0 }),
        ];
        let actions = json!([{ "type": "pointer", "id": "mouse", "actions": mouse }]);
        self.command("actions", json!({ "actions": actions })).await;
    }

    /// Presses keys, one after the other.
    pub async fn press(&self, keys: &[&str]) {
        let steps = |key: &&str| {
            [json!({ "type": "keyDown", "value": key }), json!({ "type": "keyUp", "value": key })]
        };
        let keys: Vec<Value> = keys.iter().flat_map(steps).collect();
        let actions = json!([{ "type": "key", "id": "keyboard", "actions": keys }]);
        self.command("actions", json!({ "actions": actions })).await;
    }

    /// What came into a log (`browser` is the console) since it was read last.
    pub async fn log(&self, kind: &str) -> Vec<Value> {
        let entries = self.command("se/log", json!({ "type": kind })).await;
        entries.as_array().expect("a list").clone()
    }

    async fn command(&self, path: &str, body: Value) -> Value {
        self.post(&format!("session/{}/{path}", self.session), body).await
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        let url = format!("http://{}:{}/{path}", Ipv4Addr::LOCALHOST, self.port);
        let response = self.http.post(url).json(&body).send().await.expect("the driver answers");
        let status = response.status();
        let mut answer: Value = response.json().await.expect("JSON");
        assert!(status.is_success(), "{path}: {}", answer["value"]["message"]);
        answer["value"].take()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The driver ends its browser only when it is asked to.
        let Ok(mut driver) = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)) else { return };
        let _ = driver.set_read_timeout(Some(END_WAIT));
        let request = format!(
            "DELETE /session/{} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
            self.session
        );
        let _ = driver.write_all(request.as_bytes());
        let _ = driver.read(&mut [0; 1]);
    }
}
