//! The explorer in a real browser, on a real node: what it shows is compared with the REST API.
//!
//! Needs Chromium and its driver. Without them the test says so and passes, unless `FLASH_REQUIRE_BROWSER` is
//! set.

use std::io::Write;

use flash_node_client::client::NodeClient;
use flash_proto::{
    Action, Address, Amount, Block, ChannelId, Essence, Open, Output, OutputId, Payload, SecretKey,
    Transaction,
    block::{Data, Work},
    record::Party,
    transaction::commit_inputs,
};
use flash_tests::{Browser, Net, NetOptions, poll, until};
use flashd::treasury;
use serde_json::{Value, json};

const COINS: [u64; 2] = [3_000_000, 5_000_000];
/// What must never become part of the page.
const HOSTILE: &str = "<img src=x onerror=alert(1)>";

/// The live view's parts, for scripts.
const LIVE: &str = "const { dag, feed, painter } = await import('/explorer/live.js');";

/// A network, somebody with money in it, and a browser.
struct Scene {
    net: Net,
    owner: SecretKey,
    coins: Vec<(OutputId, Output)>,
    http: reqwest::Client,
    browser: Browser,
}

impl Scene {
    async fn set() -> Self {
        let net = Net::with(NetOptions { milestone_ms: 500, pow_bits: 8 }).await;
        let owner = SecretKey::from_bytes([5; 32]);
        let address = Address::of(&owner.public());
        let outputs = COINS.map(|coin| Output { address, amount: Amount::new(coin) });
        treasury::fund(net.node.data(), &outputs).await.expect("the treasury pays");
        let mut coins = outputs_of(&net.client, address).await;
        coins.sort_by_key(|(_, output)| output.amount);
        let http = reqwest::Client::builder().no_proxy().build().expect("an HTTP client");
        Self { net, owner, coins, http, browser: Browser::start().await }
    }

    /// The answer of the REST API.
    async fn rest(&self, path: &str) -> Value {
        let url = format!("{}/api/v1/{path}", self.net.node.http);
        let response = self.http.get(url).send().await.expect("the node answers");
        assert!(response.status().is_success(), "{path}: {}", response.status());
        response.json().await.expect("JSON")
    }

    /// What spends one of the coins.
    fn spend(&self, coin: usize, outputs: Vec<Output>, action: Action) -> Transaction {
        let (id, spent) = self.coins[coin];
        let essence = Essence {
            network: self.net.params().id(),
            inputs: vec![id],
            inputs_commitment: commit_inputs(&[spent]),
            outputs,
            action,
        };
        let unlocks = vec![essence.unlock(&self.owner)];
        Transaction { essence, unlocks }
    }

    async fn submit(&self, payload: Payload) -> String {
        let tips: Vec<_> = serde_json::from_value(self.rest("tips").await).expect("ids");
        let mut block = Block::new(tips.into_iter().take(2).collect(), payload);
        let work = Work::of(&block.to_bytes());
        block.nonce = work.search(self.net.params().pow_bits, 0, u64::MAX).expect("a nonce");
        let url = format!("{}/api/v1/blocks", self.net.node.http);
        let response = self.http.post(url).body(block.to_bytes()).send().await.expect("the node answers");
        let answer: Value = response.json().await.expect("JSON");
        answer["id"].as_str().unwrap_or_else(|| panic!("refused: {answer}")).to_owned()
    }

    async fn carry(&self, transaction: &Transaction) -> String {
        self.submit(Payload::Transaction(Box::new(transaction.clone()))).await
    }

    async fn js(&self, body: &str, arguments: &[Value]) -> Value {
        self.browser.run(&format!("return (async (...args) => {{ {body} }})(...arguments)"), arguments).await
    }

    async fn live(&self, body: &str, arguments: &[Value]) -> Value {
        self.js(&format!("{LIVE} {body}"), arguments).await
    }

    async fn text(&self, selector: &str) -> String {
        let selector = [json!(selector)];
        let found = self.js("return document.querySelector(args[0])?.textContent ?? ''", &selector).await;
        found.as_str().unwrap_or_default().to_owned()
    }

    /// What the live view makes of a block.
    async fn drawn(&self, block: &str) -> Value {
        self.live("return dag.get(args[0])?.state", &[json!(block)]).await
    }

    /// Opens a view and waits until it shows this.
    async fn view(&self, kind: &str, id: &str) -> Value {
        self.js("location.hash = args[0]", &[json!(format!("#/{kind}/{id}"))]).await;
        self.shown(kind, id).await
    }

    /// Each row of the view once it is there, by its name.
    async fn shown(&self, kind: &str, id: &str) -> Value {
        let rows = "const kind = document.querySelector('#view .kind')?.textContent.toLowerCase(); \
            if (kind !== args[0] || document.querySelector('#view h1')?.textContent !== args[1]) return null; \
            const names = [...document.querySelectorAll('#view dt')]; \
            return names.map((name) => [name.textContent, name.nextElementSibling.textContent]);";
        let rows = poll(&format!("the view of {kind} {id}"), || async {
            let rows = self.js(rows, &[json!(kind), json!(id)]).await;
            (!rows.is_null()).then_some(rows)
        })
        .await;
        let rows = rows.as_array().expect("rows").iter();
        rows.map(|row| (row[0].as_str().expect("a name").to_owned(), row[1].clone())).collect()
    }

    async fn search(&self, text: &str) {
        let body = "document.getElementById('query').value = args[0]; \
            document.getElementById('search').requestSubmit();";
        self.js(body, &[json!(text)]).await;
    }
}

async fn outputs_of(client: &NodeClient, address: Address) -> Vec<(OutputId, Output)> {
    client.outputs_of(&[address]).await.expect("the node answers").value
}

fn someone(n: u8) -> Address {
    Address::of(&SecretKey::from_bytes([n; 32]).public())
}

fn assert_row(rows: &Value, name: &str, wanted: &str) {
    let row = rows[name].as_str().unwrap_or_default();
    assert!(row.contains(wanted), "{name} should say `{wanted}`: {rows:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_explorer_shows_the_tangle_as_it_grows_and_everything_in_it() {
    if let Some(reason) = Browser::missing() {
        assert!(std::env::var_os("FLASH_REQUIRE_BROWSER").is_none(), "{reason}");
        // Standard error itself: the harness keeps what the print macros write to itself.
        let said = std::io::stderr().write_all(format!("SKIPPED the explorer's test: {reason}\n").as_bytes());
        return said.expect("standard error");
    }
    let scene = Scene::set().await;
    scene.browser.open(&scene.net.node.http).await;
    until("the page to be live", || async { scene.text("#connection").await == "live" }).await;
    let made = Made::make(&scene).await;
    the_picture_follows(&scene, &made).await;
    filter_and_pause_work(&scene, &made).await;
    a_block_opens(&scene, &made).await;
    the_views_agree_with_the_node(&scene, &made).await;
    what_is_unknown_is_said(&scene).await;
    nothing_came_from_elsewhere(&scene).await;
}

/// What was put into the Tangle: two spends of one coin, a channel, and data.
struct Made {
    spends: [(Transaction, String); 2],
    open: (Transaction, String),
    data: String,
}

impl Made {
    async fn make(scene: &Scene) -> Self {
        let amount = Amount::new(COINS[0]);
        let mut spends = Vec::new();
        for n in [31, 32] {
            let outputs = vec![Output { address: someone(n), amount }];
            let transaction = scene.spend(0, outputs, Action::Transfer);
            let block = scene.carry(&transaction).await;
            spends.push((transaction, block));
        }
        let party = |n, deposit| Party {
            key: SecretKey::from_bytes([n; 32]).public(),
            payout: someone(n + 1),
            deposit: Amount::new(deposit),
        };
        let open = Open {
            party_a: party(40, COINS[1] - 1_000_000),
            party_b: party(50, 1_000_000),
            contest_window_milestones: 10,
            expiry_milestone: scene.net.info().await.milestone_index + 100,
        };
        let open = scene.spend(1, Vec::new(), Action::Open(open));
        let opened = scene.carry(&open).await;
        let data = Data { tag: HOSTILE.as_bytes().to_vec(), data: b"41 Wh".to_vec() };
        let data = scene.submit(Payload::Data(data)).await;
        Self { spends: spends.try_into().expect("two"), open: (open, opened), data }
    }
}

async fn the_picture_follows(scene: &Scene, made: &Made) {
    let blocks = [&made.spends[0].1, &made.spends[1].1, &made.open.1, &made.data];
    for block in blocks {
        until("a milestone to confirm what is drawn", || async {
            !["pending", ""].contains(&scene.drawn(block).await.as_str().unwrap_or_default())
        })
        .await;
        assert_eq!(scene.drawn(block).await, scene.rest(&format!("blocks/{block}/metadata")).await["status"]);
    }
    let mut states = [scene.drawn(blocks[0]).await, scene.drawn(blocks[1]).await];
    states.sort_by_key(Value::to_string);
    assert_eq!(states, ["applied", "rejected"]);

    let index = |text: String| text.replace(',', "").parse::<u64>().unwrap_or_default();
    let before = index(scene.text("#milestone").await);
    until("the next milestones to appear", || async { index(scene.text("#milestone").await) >= before + 2 })
        .await;
    let newest = "return [...dag.nodes()].findLast((node) => node.payload === 'milestone')?.carried ?? 0";
    until("a milestone to be drawn", || async { scene.live(newest, &[]).await.as_u64() > Some(before) })
        .await;
    for figure in ["#blocks-rate", "#applied-rate", "#tips"] {
        until(figure, || async { scene.text(figure).await.parse().unwrap_or(0.0) > 0.0 }).await;
    }
    // Something of each colour stands on the canvas.
    let painted = "const { width, height } = document.getElementById('dag'); \
        const dots = document.getElementById('dag').getContext('2d').getImageData(0, 0, width, height).data; \
        const colours = new Set(); \
        for (let at = 0; at < dots.length; at += 4) \
          if (dots[at + 3] === 255) colours.add(dots.slice(at, at + 3).join()); \
        const style = getComputedStyle(document.documentElement); \
        const wanted = (name) => style.getPropertyValue(name).trim().match(/[0-9a-f]{2}/g) \
          .map((hex) => parseInt(hex, 16)).join(); \
        return ['--applied', '--rejected', '--milestone', '--included'].filter((name) => !colours.has(wanted(name)));";
    until("every state to be painted", || async { scene.js(painted, &[]).await == json!([]) }).await;
}

async fn filter_and_pause_work(scene: &Scene, made: &Made) {
    let filter = "const filter = document.getElementById('filter'); filter.value = args[0]; \
        filter.dispatchEvent(new Event('input')); return document.getElementById('shown').textContent";
    let shown = scene.js(filter, &[json!(&made.data[..12])]).await;
    assert!(shown.as_str().is_some_and(|shown| shown.starts_with("1 of ")), "{shown}");
    assert_eq!(scene.js("return document.querySelectorAll('#newest tr').length", &[]).await, 1);
    scene.js(filter, &[json!("")]).await;

    let pause = "document.getElementById('pause').click();";
    let held = scene.live(&format!("{pause} return dag.newest"), &[]).await;
    until("blocks to wait", || async { scene.live("return feed.waiting", &[]).await.as_u64() > Some(1) })
        .await;
    assert_eq!(scene.live("return dag.newest", &[]).await, held);
    let waited = scene.live("return feed.waiting", &[]).await.as_u64();
    let newest = scene.live(&format!("{pause} return dag.newest"), &[]).await.as_u64();
    assert!(newest >= held.as_u64().zip(waited).map(|(held, waited)| held + waited), "{held} {newest:?}");
}

async fn a_block_opens(scene: &Scene, made: &Made) {
    // Nothing moves while it is clicked at.
    let place = "feed.pause(); painter.following = false; painter.frame(); \
        const { x, y } = painter.place(dag.get(args[0])); \
        const canvas = document.getElementById('dag').getBoundingClientRect(); \
        return [canvas.x + x, canvas.y + y].map(Math.round)";
    let place = scene.live(place, &[json!(made.data)]).await;
    scene.browser.click(place[0].as_i64().expect("x"), place[1].as_i64().expect("y")).await;
    scene.shown("block", &made.data).await;
    scene.js("history.back()", &[]).await;
    until("the picture", || async { scene.js("return location.hash.length < 3", &[]).await == true }).await;
    scene.live("painter.following = true; feed.resume()", &[]).await;
    // The arrow and Enter, as WebDriver names them. The picture takes keys once it is shown again.
    until("an arrow to pick a block", || async {
        scene.js("document.getElementById('dag').focus()", &[]).await;
        scene.browser.press(&["\u{e012}"]).await;
        scene.js("return document.getElementById('tip').hidden", &[]).await == false
    })
    .await;
    scene.browser.press(&["\u{e007}"]).await;
    until("a block's view", || async { scene.text("#view .kind").await == "Block" }).await;
}

async fn the_views_agree_with_the_node(scene: &Scene, made: &Made) {
    let mut rejected = 0;
    for (transaction, block) in &made.spends {
        let metadata = scene.rest(&format!("blocks/{block}/metadata")).await;
        let rows = scene.view("block", block).await;
        assert_row(&rows, "Confirmed by", &format!("milestone {}", metadata["milestone_index"]));
        assert_row(&rows, "Carries", &transaction.id().to_string());
        assert_row(&rows, "Sum of the outputs", "3Mi (3,000,000 i)");
        let parents = scene.rest(&format!("blocks/{block}")).await["parents"].clone();
        for parent in parents.as_array().expect("parents") {
            assert_row(&rows, "Approves", parent.as_str().expect("an id"));
        }
        assert_row(&rows, "Height", &metadata["measures"]["height"].to_string());
        let of_transaction = scene.view("transaction", &transaction.id().to_string()).await;
        assert_row(&of_transaction, "Carried by", block);
        if let Some(reason) = metadata["reason"].as_str() {
            rejected += 1;
            for rows in [&rows, &of_transaction] {
                assert_row(rows, "State", &format!("conflicting: {reason}"));
            }
            continue;
        }
        assert_row(&of_transaction, "Proof", "Path");
        let address = transaction.essence.outputs[0].address;
        let output = OutputId { transaction: transaction.id(), index: 0 }.to_string();
        let rows = scene.view("output", &output).await;
        assert_row(&rows, "Amount", "3Mi (3,000,000 i)");
        assert_row(&rows, "Address", &address.to_string());
        let rows = scene.view("address", &address.to_string()).await;
        assert_row(&rows, "Holds", "3Mi (3,000,000 i)");
        assert!(scene.text("#view").await.contains(block), "the address names its block");
    }
    assert_eq!(rejected, 1);
    let spent = scene.view("output", &scene.coins[0].0.to_string()).await;
    assert_row(&spent, "State", "spent");

    let channel = ChannelId::opened_by(made.open.0.id()).to_string();
    scene.search(&channel).await;
    let rows = scene.shown("channel", &channel).await;
    assert_row(&rows, "State", "open");
    assert_row(&rows, "Holds", "5Mi (5,000,000 i)");
    let rows = scene.view("block", &made.open.1).await;
    assert_row(&rows, "Channel", &channel);

    let rows = scene.view("block", &made.data).await;
    assert_row(&rows, "Tag", HOSTILE);
    assert_row(&rows, "Data", "41 Wh");
    assert_eq!(scene.js("return document.querySelectorAll('#view img').length", &[]).await, 0);

    let index = scene.rest(&format!("blocks/{}/metadata", made.data)).await["milestone_index"].to_string();
    let milestone = scene.rest(&format!("milestones/{index}")).await;
    scene.search(&index).await;
    let rows = scene.shown("milestone", &index).await;
    for (row, field) in [("Id", "id"), ("Carried by", "block"), ("Root of the ledger's state", "state_root")]
    {
        assert_row(&rows, row, milestone[field].as_str().expect("text"));
    }
    let included = scene.rest(&format!("milestones/{index}/blocks")).await;
    for block in included["blocks"].as_array().expect("blocks") {
        assert!(scene.text("#view table").await.contains(block["id"].as_str().expect("an id")));
    }
    scene.search(&made.spends[0].0.id().to_string()).await;
    scene.shown("transaction", &made.spends[0].0.id().to_string()).await;
}

async fn what_is_unknown_is_said(scene: &Scene) {
    let unknown = "ab".repeat(32);
    for (text, wanted) in [
        ("what is this", "“what is this” is no block"),
        (unknown.as_str(), "is no block"),
        ("flash1qqqq", "flash1qqqq"),
        ("99999999", "is not known here"),
    ] {
        scene.search(text).await;
        let said = poll("an error", || async {
            let said = scene.text("#view .note.bad").await;
            said.to_lowercase().contains(&wanted.to_lowercase()).then_some(said)
        });
        assert!(!said.await.contains("undefined"));
        scene.js("location.hash = '#/'", &[]).await;
    }
    scene.js("location.hash = `#/block/${args[0]}`", &[json!(unknown)]).await;
    until("an error", || async { scene.text("#view .note.bad").await.contains("not known here") }).await;
}

async fn nothing_came_from_elsewhere(scene: &Scene) {
    for entry in scene.browser.log("browser").await {
        // What the node does not know it answers with 404, which a browser notes down.
        let message = entry["message"].as_str().unwrap_or_default();
        let expected =
            entry["source"] == "network" && (message.contains(" 404 ") || message.contains(" 400 "));
        assert!(expected, "in the console: {entry}");
    }
    let base = format!("{}/", scene.net.node.http);
    let mut requests = 0;
    for entry in scene.browser.log("performance").await {
        let entry: Value = serde_json::from_str(entry["message"].as_str().expect("text")).expect("JSON");
        if entry["message"]["method"] != "Network.requestWillBeSent" {
            continue;
        }
        let params = &entry["message"]["params"];
        // The browser's own page for new windows.
        if params["documentURL"].as_str().is_some_and(|page| page.starts_with("chrome://")) {
            continue;
        }
        let url = params["request"]["url"].as_str().expect("an address");
        assert!(url.starts_with(&base), "asked elsewhere: {url}");
        requests += 1;
    }
    assert!(requests > 20, "{requests} requests were seen");
}
