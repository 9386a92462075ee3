//! `larder-node`: the agent and the proxy of one node.
//!
//! What was typed ([`args`]) becomes what is meant ([`config`]), and then one of: two processes ([`run`]), one of them
//! ([`proxy`], [`agent`]), a single step by hand ([`by_hand`]), or a look ([`status`], [`check`]). Exit status: 0 done, 1 failed,
//! 2 wrong usage; `plan --exit-code` adds 3 for "there is something to do".

mod agent;
mod apply_once;
mod args;
mod by_hand;
mod check;
mod child;
mod config;
mod engine_reload;
mod engine_restart;
mod handed_on;
mod in_use;
mod kubernetes;
mod leftover;
mod metrics;
mod node;
mod parent;
mod privileges;
mod probe;
mod proofs;
mod proxy;
mod pull_probe;
mod run_folder;
mod status;
mod supervisor;
mod watch_loop;

use crate::args::Command;
use std::process::ExitCode;

fn main() -> ExitCode {
    let (args, file) = match args::parse(std::env::args_os()) {
        Ok(parsed) => parsed,
        Err(error) => error.exit(),
    };
    if let Err(error) = larder_process::logging::init(args.log_format()) {
        eprintln!("larder-node: {error}");
        return ExitCode::from(2);
    }
    if let Some(file) = file {
        tracing::debug!(file = %file.display(), "options read");
    }
    let log = args.log_format();
    let result = match args.command {
        Command::Run(args) => {
            agent::run(&args.agent, log, Some((&args.proxy, args.proxy_admin))).map(|()| ExitCode::SUCCESS)
        }
        Command::Agent(args) => agent::run(&args, log, None).map(|()| ExitCode::SUCCESS),
        Command::Proxy(args) => proxy::run(&args).map(|()| ExitCode::SUCCESS),
        Command::PrepareStore(args) => proxy::prepare_store(&args).map(|()| ExitCode::SUCCESS),
        Command::Check(command) => check::run(&command).map(|()| ExitCode::SUCCESS),
        Command::Plan(args) => by_hand::plan(&args),
        Command::Apply(args) => by_hand::apply(&args).map(|()| ExitCode::SUCCESS),
        Command::Restore(args) => by_hand::restore(&args).map(|()| ExitCode::SUCCESS),
        Command::Status(args) => status::print(&args),
    };
    result.unwrap_or_else(|error| {
        eprintln!("larder-node: {error:#}");
        if error.is::<larder_process::command_line::Usage>() { ExitCode::from(2) } else { ExitCode::FAILURE }
    })
}
