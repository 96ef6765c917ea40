//! The commands of the README's walk, as a person types them and as a program does. The terminal is that of `script`, of
//! which other systems have another one.

use std::process::Command;

use flash_proto::Amount;
use flash_tests::{Daemon, Ended, Net, binary, run};
use serde_json::Value;

/// What a user has in front of him: the directory of one daemon.
struct Shell<'a> {
    daemon: &'a Daemon,
}

impl Shell<'_> {
    /// Runs a line of the shell, in which `flash` is the program and its output goes into a pipe.
    async fn line(&self, line: &str) -> Ended {
        let program = binary("flash");
        let path = std::env::var("PATH").expect("programs are found");
        let own = program.parent().expect("it is in a directory").display();
        let mut command = Command::new("sh");
        command.args(["-c", line]).env("PATH", format!("{own}:{path}"));
        command.env("FLASH_DATA", self.daemon.data());
        run(command).await
    }

    /// The value that a command prints for programs.
    async fn json(&self, command: &str) -> Value {
        let ended = self.line(&format!("flash {command} --json 2>/dev/null")).await;
        assert_eq!(ended.code, Some(0), "{command}: {}", ended.output);
        serde_json::from_str(&ended.output)
            .unwrap_or_else(|error| panic!("{command}: {error}: {}", ended.output))
    }

    /// What a command shows on a terminal.
    async fn shown(&self, command: &str, parts: &[&str]) {
        let ended = self.line(&format!("script -qec 'flash {command}' /dev/null")).await;
        assert_eq!(ended.code, Some(0), "{command}: {}", ended.output);
        for part in parts {
            assert!(ended.output.contains(part), "{command} should show `{part}`: {}", ended.output);
        }
        assert!(!ended.output.contains('{'), "{command} is for people: {}", ended.output);
    }

    /// A command that must fail with this code, for people and for programs.
    async fn fails(&self, command: &str, code: i32, kind: &str) {
        let ended = self.line(&format!("flash {command}")).await;
        assert_eq!(ended.code, Some(code), "{command}: {}", ended.output);
        assert!(ended.output.contains("error: "), "{command}: {}", ended.output);
        let ended = self.line(&format!("flash {command} --json")).await;
        assert_eq!(ended.code, Some(code), "{command}: {}", ended.output);
        let error: Value = serde_json::from_str(&ended.output)
            .unwrap_or_else(|error| panic!("{command}: {error}: {}", ended.output));
        assert_eq!(error["code"], kind, "{command}: {error}");
        assert!(error["hint"].as_str().is_some_and(|hint| !hint.is_empty()), "{command}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_walk_of_the_readme_by_the_command_line() {
    let net = Net::start().await;
    let (mut car, charger) =
        tokio::join!(net.daemon("car", Amount::ZERO), net.daemon("charger", Amount::ZERO));
    let shell = Shell { daemon: &car };
    shell.shown("channel list", &["no channels; open one with"]).await;
    shell.shown("wallet history", &["nothing came or went yet"]).await;
    shell.shown("tower list", &["no watchtowers"]).await;
    let fund =
        format!("flashd node fund $(flash wallet address --plain) 10Mi --data {}", net.node.data().display());
    let funded = shell.line(&fund).await;
    assert_eq!(funded.code, Some(0), "{}", funded.output);
    let address = shell.json("wallet address").await["address"].as_str().unwrap().to_owned();
    flash_tests::until("the money to be seen", || async {
        shell.json("wallet balance").await["available"] == "10000000"
    })
    .await;
    shell.shown("wallet balance", &["available", "10Mi", "at milestone"]).await;

    let ticket = Shell { daemon: &charger }.line("flash ticket").await.output;
    let opened = shell.json(&format!("channel open {} 2Mi --contest-window 60", ticket.trim())).await;
    let id = opened["id"].as_str().unwrap().to_owned();
    let channel = &id[..12];
    assert_eq!((&opened["state"], &opened["deposit"]), (&"open".into(), &"2000000".into()));
    charger.wait(id.parse().unwrap(), "open", |info| info.connected && info.state == "open").await;
    car.wait(id.parse().unwrap(), "in use", |info| info.connected && info.paused.is_none()).await;
    shell.shown("channel list", &["CHANNEL", "BALANCE", channel, "open", "2Mi"]).await;

    pay(&shell, channel).await;
    let changed = shell.json(&format!("channel top-up {channel} 1Mi")).await;
    assert_eq!(changed["deposit"], "3000000");
    let changed = shell.json(&format!("channel withdraw {channel} 500Ki")).await;
    assert_eq!(changed["withdrawn"], "500000");
    let stakes = ["deposit", "3Mi", "withdrawn", "500Ki", "payments: 202, acknowledged: 202"];
    shell.shown(&format!("channel show {channel}"), &stakes).await;
    look(&shell, channel, opened["open_transaction"].as_str().unwrap()).await;
    refuse(&shell, channel).await;

    let closed = shell.json(&format!("channel close {channel}")).await;
    assert_eq!((&closed["payout"], &closed["peer_payout"]), (&"2493499".into(), &"6501".into()));
    let sent = shell.json(&format!("wallet send {address} 1Mi")).await;
    assert!(sent["milestone_index"].is_u64(), "{sent}");
    shell.shown("wallet history", &["MILESTONE", "KIND", "10Mi"]).await;
    flash_tests::until("all the rest to be in the wallet", || async {
        shell.json("wallet balance").await["available"] == "9993499"
    })
    .await;
    shell.shown("wallet history", &["channel_payout"]).await;
    net.assert_supply().await;
    shell.shown("stop", &["has stopped"]).await;
    assert_eq!(car.process().wait().await.code, Some(0));
    Shell { daemon: &car }.fails("info", 6, "daemon_unreachable").await;
}

/// One, one again, a hundred by a stream, a hundred by ticks: 6,501 in 202 payments.
async fn pay(shell: &Shell<'_>, channel: &str) {
    let first = format!("pay {channel} 1.5Ki --reference \"Wh 1\" --key first");
    let paid = shell.json(&first).await;
    assert_eq!((&paid["number"], &paid["repeated"]), (&1.into(), &false.into()), "{paid}");
    shell.shown(&first, &["paid 1.5Ki (1500i), payment 1; paid before, under the same key"]).await;
    let stream = format!("seq 1 100 | sed 's/.*/25/' | flash stream {channel} --from-stdin 2>&1");
    let ended = shell.line(&stream).await;
    assert_eq!((ended.code, ended.output.lines().count()), (Some(0), 101), "{}", ended.output);
    assert!(ended.output.contains("100 paid, 2.5Ki (2500i) in all; 0 refused"), "{}", ended.output);
    let ticks = shell.json(&format!("tick {channel} 25 --count 100")).await;
    assert_eq!((&ticks["ticks"], &ticks["amount"]), (&100.into(), &"2500".into()), "{ticks}");
    shell.shown(&format!("tick {channel} 1"), &["paid 1i in 1 tick, payment 202"]).await;
}

/// Every command that only reads, for people and for programs.
async fn look(shell: &Shell<'_>, channel: &str, transaction: &str) {
    let tx = format!("ledger tx {transaction}");
    let show = format!("channel show {channel}");
    let tower = format!("tower show {channel}");
    let reading: [(&str, &[&str]); 8] = [
        ("info", &["ticket for peers", "fresh"]),
        ("channel list --all", &[channel]),
        (&show, &["connected", "contest window", "60 milestones"]),
        ("ledger status", &["verified to", "following"]),
        ("ledger milestone", &["state root", "signed by"]),
        (&tx, &["open", "applied", transaction]),
        (&tower, &["no watchtowers"]),
        ("wallet history --limit 1", &["AMOUNT"]),
    ];
    for (command, parts) in reading {
        shell.shown(command, parts).await;
        shell.json(command).await;
    }
    shell.shown("events", &["channel_opened", "balances.ours=2000000", "by=us"]).await;
    let events = shell.line("flash events --after 1").await;
    let kinds: Vec<Value> = events.output.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(kinds.iter().all(|event| event["number"].as_u64() > Some(1)), "{}", events.output);
}

/// What cannot be done says so with a stable code and what to do.
async fn refuse(shell: &Shell<'_>, channel: &str) {
    let pay = format!("pay {channel} 3Mi");
    let trust = format!("channel trust {channel}");
    for (command, code, kind) in [
        (pay.as_str(), 8, "insufficient_balance"),
        ("pay abcdef 1", 8, "unknown_channel"),
        ("channel show 0123456", 8, "unknown_channel"),
        (trust.as_str(), 2, "invalid_request"),
    ] {
        shell.fails(command, code, kind).await;
    }
    for wrong in ["pay", "pay xyz 1", &format!("pay {channel} 1.0000001Mi"), "channel open nobody 2Mi", "no"]
    {
        assert_eq!(shell.line(&format!("flash {wrong}")).await.code, Some(2), "{wrong}");
    }
}
