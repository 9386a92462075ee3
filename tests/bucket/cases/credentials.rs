//! Where credentials are found, as a person gives them to the program, and what is said when they are wrong.

use std::time::Duration;

use larder_oci::Registry;
use larder_test_bucket::{AZURE, Cache, Kind, google};
use larder_test_origin::{Image, ImageSpec, Origin};
use tokio::task::block_in_place;

use crate::client::pull;
use crate::programs::{settings, until_kept, until_serving};
use crate::world::{Case, World, until};

pub(crate) fn cases(kind: Kind) -> Vec<Case> {
    let mut cases: Vec<Case> =
        vec![("what_is_wrong_with_credentials_or_name_is_said_at_the_start", |world| Box::pin(wrong(world)))];
    match kind {
        Kind::FakeGcs => {
            cases.push(("a_key_of_googles_may_be_in_the_environment", |world| Box::pin(key_itself(world))));
            cases.push(("a_machine_of_googles_needs_no_file", |world| Box::pin(of_the_machine(world))));
        }
        Kind::Azurite => {
            cases.push(("the_variables_of_azures_command_line_are_understood", |world| Box::pin(command_line(world))));
        }
        Kind::Versitygw | Kind::Minio => {}
    }
    cases
}

fn nowhere() -> Registry {
    Registry::parse("reg.example.com").unwrap()
}

async fn says(cache: &Cache, words: &str) {
    let said = until(Duration::from_secs(30), async || cache.log().contains(words)).await;
    assert!(said, "{words}: {}", cache.log());
}

async fn wrong(world: World) {
    let world = world.fresh();
    let folder = tempfile::tempdir().unwrap();
    let another_account = block_in_place(|| google::account_in(folder.path()).unwrap());
    let variable = match world.kind() {
        Kind::Versitygw | Kind::Minio => ("AWS_SECRET_ACCESS_KEY", "wrong"),
        Kind::FakeGcs => (google::ACCOUNT, another_account.to_str().unwrap()),
        Kind::Azurite => (AZURE[1].0, "d3Jvbmc="),
    };
    let mut denied = settings(&world, "one", &nowhere());
    denied.environment.push((variable.0.to_owned(), variable.1.to_owned()));
    let cache = Cache::start(denied).unwrap();
    says(&cache, "access denied, look at the credentials and their rights").await;

    let mut missing = settings(&world, "one", &nowhere());
    missing.store = missing.store.replace("://images/", "://imagse/");
    let cache = Cache::start(missing).unwrap();
    says(&cache, "cannot be used yet").await;
    // It serves all the same.
    until_serving(&cache).await;
}

/// An image that was pulled through one process is had from the bucket by another one.
async fn serves(world: &World, environment: &[(&str, String)]) {
    let origin = Origin::start();
    let image = Image::build(&ImageSpec { layers: vec![2_000, 9 << 20], ..ImageSpec::default() });
    origin.push("team/app", "v1", &image);
    let start = || {
        let mut settings = settings(world, "one", &origin.registry());
        settings.environment.extend(environment.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        Cache::start(settings).unwrap()
    };
    let first = start();
    until_serving(&first).await;
    pull(first.address, &origin.registry(), "team/app", "v1", &image).await.unwrap();
    until_kept(first.admin).await;
    block_in_place(|| origin.stop());
    let second = start();
    until_serving(&second).await;
    let pulled = pull(second.address, &origin.registry(), "team/app", "v1", &image).await;
    pulled.unwrap_or_else(|error| panic!("{error}: {}", second.log()));
    block_in_place(|| drop(origin));
}

async fn key_itself(world: World) {
    let world = world.fresh();
    let key = std::fs::read_to_string(std::env::var(google::ACCOUNT).unwrap()).unwrap();
    serves(&world, &[(google::ACCOUNT, String::new()), ("GOOGLE_SERVICE_ACCOUNT_KEY", key)]).await;
}

async fn of_the_machine(world: World) {
    let world = world.fresh();
    let metadata = world.server().address().to_string();
    // Nor is one found in the home folder.
    let home = tempfile::tempdir().unwrap().path().display().to_string();
    serves(&world, &[(google::ACCOUNT, String::new()), ("GCE_METADATA_HOST", metadata), ("HOME", home)]).await;
}

async fn command_line(world: World) {
    let world = world.fresh();
    let [(name, account), (key_name, key)] = AZURE.map(|(name, value)| (name, value.to_owned()));
    let variables = [("AZURE_STORAGE_ACCOUNT", account), ("AZURE_STORAGE_KEY", key)];
    serves(&world, &[&[(name, String::new()), (key_name, String::new())][..], &variables].concat()).await;
}
