//! The whole system's tests, in one program: most of what they do is waiting, so that several run at a time.

mod backup;
#[cfg(target_os = "linux")]
mod commands;
mod disk;
mod explorer;
mod failure_cases;
mod faults;
mod force;
mod full_node;
mod hostile;
mod interrupted;
mod kill;
mod ledger_refusals;
mod liar;
mod million;
mod network;
mod notary;
mod operation;
#[cfg(target_os = "linux")]
mod power_cut;
mod receipts;
mod secrets;
mod stakes;
mod ticks;
mod tower;
mod wallet_restore;
