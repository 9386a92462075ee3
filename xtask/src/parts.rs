//! `cargo xtask parts`: has the real programs built or installed, and says where they are. The work is `tests/parts`.

use std::process::ExitCode;

use anyhow::Result;
use larder_test_parts::{Debian, Parts};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Folders under tests/parts/modules, or Debian packages (nginx, runc, …); without a name, all the former
    names: Vec<String>,

    /// Only list what there is
    #[arg(long)]
    list: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let parts = Parts::from_environment()?;
    let modules = parts.names()?;
    let debian = Debian::ALL.map(|program| (program.package(), program));
    if arguments.list {
        for name in modules {
            println!("{name}");
        }
        for (package, _) in debian {
            println!("{package} (Debian)");
        }
        return Ok(ExitCode::SUCCESS);
    }
    let wanted = if arguments.names.is_empty() { &modules } else { &arguments.names };
    for name in wanted {
        let program = debian.iter().find(|(package, _)| package == name).map(|(_, program)| *program);
        let path = match program {
            Some(program) => parts.debian(program)?,
            None => parts.module(name)?,
        };
        println!("{name:16} {}", path.display());
    }
    Ok(ExitCode::SUCCESS)
}
