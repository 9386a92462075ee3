//! `cargo xtask …`: everything that a developer types. Each command is a module; this file only tells them apart.

mod bench;
mod chart_readme;
mod crds;
mod demo;
mod fuzz;
mod generate_cri;
mod image;
mod parts;
mod test;
mod workspace;

use std::process::ExitCode;

use clap::Parser;

/// What a developer of Larder types.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Command {
    /// Show what Larder does on one node, with a real registry and a real engine
    Demo(demo::Arguments),
    /// Run the tests, tier by tier; the last line counts them all
    Test(test::Arguments),
    /// Throw bytes at what reads bytes from outside, and check what comes out
    Fuzz(fuzz::Arguments),
    /// Measure Larder beside what a user would pick instead, as ratios; never a pass or fail
    Bench(bench::Arguments),
    /// Make the container image with the programs, without a container engine
    Image(image::Arguments),
    /// Build or install the real programs that tests run against, and print where they are
    Parts(parts::Arguments),
    /// Write the client of the container runtime interface anew from its definition
    GenerateCri(generate_cri::Arguments),
    /// Write the table of values in the chart's README anew from the comments of values.yaml
    ChartReadme(chart_readme::Arguments),
    /// Write the definitions of the custom resources, and the page about them, anew from their types
    Crds(crds::Arguments),
}

fn main() -> ExitCode {
    let done = match Command::parse() {
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Test(arguments) => test::run(&arguments),
        Command::Fuzz(arguments) => fuzz::run(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Image(arguments) => image::run(&arguments),
        Command::Parts(arguments) => parts::run(&arguments),
        Command::GenerateCri(arguments) => generate_cri::run(&arguments),
        Command::ChartReadme(arguments) => chart_readme::run(&arguments),
        Command::Crds(arguments) => crds::run(&arguments),
    };
    done.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
