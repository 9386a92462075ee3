use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use larder_process::readiness::Readiness;
use serde_json::{Value, json};
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::testing::{ISSUER, NODE, Signer, whose};
use super::unknown_keys::{EVERY, TOGETHER};
use super::*;
use crate::kubernetes::api_server::{Published, Reviewed};
use crate::kubernetes::saved_folder::SavedFolder;

const DAY: Duration = Duration::from_hours(24);

#[derive(Debug, Clone, Copy, PartialEq)]
enum Mood {
    Answers,
    Slow,
    Away,
    RefusesReviews,
}

/// An API server that accepts what its key signed and is not over.
struct Api {
    signer: Mutex<Arc<Signer>>,
    mood: Mutex<Mood>,
    audiences: Mutex<Vec<String>>,
    reviews: AtomicUsize,
}

impl fmt::Debug for Api {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Api")
    }
}

impl Api {
    fn new() -> Arc<Self> {
        let (mood, audiences) = (Mutex::new(Mood::Answers), Mutex::new(vec!["larder-cache".to_owned()]));
        Arc::new(Self { signer: Mutex::new(Arc::new(Signer::new("a"))), mood, audiences, reviews: AtomicUsize::new(0) })
    }

    fn is(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    fn signer(&self) -> Arc<Signer> {
        Arc::clone(&self.signer.lock().unwrap())
    }

    fn reviews(&self) -> usize {
        self.reviews.load(Ordering::Relaxed)
    }

    async fn mood(&self) -> Result<Mood, ApiError> {
        let mood = *self.mood.lock().unwrap();
        match mood {
            Mood::Away => Err(ApiError::Away("refused".to_owned())),
            Mood::Slow => {
                tokio::time::sleep(Duration::from_secs(3)).await;
                Ok(mood)
            }
            _ => Ok(mood),
        }
    }

    /// Of a node, until some seconds from now.
    fn token(&self, until: i64) -> Token {
        self.token_of(&json!({"sub": NODE}), until)
    }

    fn token_of(&self, more: &Value, until: i64) -> Token {
        let mut claims =
            json!({"iss": ISSUER, "aud": ["larder-cache"], "exp": now().checked_add_signed(until).unwrap()});
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Token::new(Zeroizing::new(self.signer().sign(&claims)))
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

impl Reviews for Api {
    fn review<'a>(&'a self, token: &'a Token, _: &'a [String]) -> BoxFuture<'a, Result<Option<Reviewed>, ApiError>> {
        Box::pin(async move {
            self.reviews.fetch_add(1, Ordering::Relaxed);
            if self.mood().await? == Mood::RefusesReviews {
                return Err(ApiError::Refused { code: 403, message: "cannot create tokenreviews".to_owned() });
            }
            tokio::task::yield_now().await;
            let claims = self.signer().keys().verify(token, &whose(), SystemTime::now(), SystemTime::now());
            let audiences = self.audiences.lock().unwrap().clone();
            Ok(claims.ok().map(|claims| Reviewed { username: claims.sub, audiences }))
        })
    }

    fn keys(&self) -> BoxFuture<'_, Result<Published, ApiError>> {
        Box::pin(async move { self.mood().await.map(|_| self.signer().published()) })
    }
}

/// Waits for a condition that something else brings about, in real time.
async fn until(what: &str, condition: impl Fn() -> bool) {
    let met = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(30), met).await.unwrap_or_else(|_| panic!("waited in vain: {what}"));
}

/// The end of what was told to stop.
async fn ended(following: tokio::task::JoinHandle<()>) {
    timeout(Duration::from_secs(30), following).await.expect("waited in vain: following the keys ends").unwrap();
}

struct Cache {
    api: Arc<Api>,
    keys: Arc<SavedKeys>,
    callers: TokenCallers,
}

impl Cache {
    fn new(api: &Arc<Api>, folder: Option<SavedFolder>) -> Self {
        let keys = Arc::new(SavedKeys::open(Arc::clone(api) as Arc<_>, folder, DAY));
        let callers = TokenCallers::new(whose(), Arc::clone(api) as Arc<_>, Arc::clone(&keys), Counts::default());
        Self { api: Arc::clone(api), keys, callers: callers.unwrap() }
    }

    async fn ready() -> Self {
        let cache = Self::new(&Api::new(), None);
        assert!(!cache.keys.check(READING).await);
        cache
    }

    async fn ask(&self, token: &Token) -> Result<String, Unaccepted> {
        self.callers.caller(token).await.map(|caller| caller.name)
    }

    /// The same, as the metrics would count it: accepted, refused, cannot tell.
    async fn asked(&self, token: &Token) -> &'static str {
        match self.ask(token).await {
            Ok(_) => "accepted",
            Err(Unaccepted::Unknown) => "refused",
            Err(Unaccepted::CannotTell(_)) => "cannot tell",
        }
    }
}

#[tokio::test(start_paused = true)]
async fn many_who_come_with_one_token_are_one_review_and_it_is_remembered_for_a_while() {
    let cache = Cache::ready().await;
    let token = cache.api.token(3600);
    for answer in futures_util::future::join_all((0..100).map(|_| cache.ask(&token))).await {
        assert_eq!(answer, Ok("larder/node".to_owned()));
    }
    assert_eq!(cache.api.reviews(), 1);
    tokio::time::advance(ACCEPTED).await;
    assert_eq!(cache.asked(&token).await, "accepted");
    assert_eq!(cache.api.reviews(), 2);
    let over = cache.api.token(-100);
    for _ in 0..10 {
        assert_eq!(cache.asked(&over).await, "refused");
    }
    assert_eq!(cache.api.reviews(), 3, "a refusal is remembered, too");
    tokio::time::advance(REFUSED).await;
    assert_eq!(cache.asked(&over).await, "refused");
    assert_eq!(cache.api.reviews(), 4);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_ours_is_refused_without_a_review() {
    let cache = Cache::ready().await;
    for wrong in [json!({"sub": NODE, "aud": ["other"]}), json!({"sub": "system:serviceaccount:larder:other"})] {
        assert_eq!(cache.asked(&cache.api.token_of(&wrong, 3600)).await, "refused");
    }
    assert_eq!(cache.asked(&Token::new(Zeroizing::new("garbage".to_owned()))).await, "refused");
    assert_eq!(cache.api.reviews(), 0);
}

#[tokio::test(start_paused = true)]
async fn who_has_no_key_costs_the_api_server_nothing_and_its_word_counts_for_who_has() {
    let cache = Cache::ready().await;
    let good = cache.api.token(3600);
    let (unsigned, _) = good.expose().rsplit_once('.').unwrap();
    let claims = json!({"iss": ISSUER, "sub": NODE, "aud": ["larder-cache"], "exp": now() + 60});
    for (number, made_up) in [
        super::testing::token(&claims),
        format!("{unsigned}."),
        format!("{unsigned}.{}", "A".repeat(86)),
        Signer::new("a").sign(&claims),
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(cache.asked(&Token::new(Zeroizing::new(made_up))).await, "refused", "{number}");
    }
    assert_eq!(cache.api.reviews(), 0);
    cache.api.audiences.lock().unwrap().clear();
    assert_eq!((cache.asked(&good).await, cache.api.reviews()), ("refused", 1), "what is signed may be taken back");
    // An API server whose issuer had another name before accepts what it signed then.
    cache.api.audiences.lock().unwrap().push("larder-cache".to_owned());
    let renamed = cache.api.token_of(&json!({"iss": "https://before", "sub": NODE}), 3600);
    assert_eq!((cache.asked(&renamed).await, cache.api.reviews()), ("refused", 2), "it was asked");
}

#[tokio::test(start_paused = true)]
async fn keys_that_nobody_knows_are_asked_about_now_and_then_and_a_new_one_is_known_at_once() {
    let cache = Cache::ready().await;
    let made_up = |number: u64| {
        let claims = json!({"iss": ISSUER, "sub": NODE, "aud": ["larder-cache"], "exp": now() + number});
        Token::new(Zeroizing::new(Signer::new("b").sign(&claims)))
    };
    let mut answers = BTreeMap::<_, u32>::new();
    for number in 0..100 {
        *answers.entry(cache.asked(&made_up(number)).await).or_default() += 1;
    }
    assert_eq!(answers, [("refused", TOGETHER), ("cannot tell", 100 - TOGETHER)].into());
    assert_eq!(cache.api.reviews(), TOGETHER as usize);
    assert_eq!(cache.asked(&cache.api.token(3600)).await, "accepted", "there is a place for whoever has a known key");

    let (readiness, shutdown) = (Readiness::new(), tokio_util::sync::CancellationToken::new());
    let following = Arc::clone(&cache.keys).follow(readiness.condition("API server"), shutdown.clone());
    let following = tokio::spawn(following);
    tokio::time::sleep(EVERY).await;
    *cache.api.signer.lock().unwrap() = Arc::new(Signer::new("c"));
    assert_eq!(cache.asked(&cache.api.token(3600)).await, "accepted");
    tokio::time::sleep(2 * READING).await;
    for number in 0..100 {
        assert_eq!(cache.asked(&cache.api.token(3601 + number)).await, "accepted", "{number}");
    }
    shutdown.cancel();
    ended(following).await;
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_does_not_look_at_audiences_says_nothing() {
    let cache = Cache::ready().await;
    cache.api.audiences.lock().unwrap().clear();
    assert_eq!(cache.asked(&cache.api.token(3600)).await, "refused");
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_long_for_an_api_server_that_does_not_answer_and_then_not_at_all() {
    let cache = Cache::ready().await;
    cache.api.is(Mood::Slow);
    let began = Instant::now();
    assert_eq!(cache.asked(&cache.api.token(3600)).await, "accepted");
    assert!(began.elapsed() <= Duration::from_millis(1600), "{:?}", began.elapsed());
    let (began, reviews) = (Instant::now(), cache.api.reviews());
    assert_eq!(cache.asked(&cache.api.token(3601)).await, "accepted");
    assert_eq!((began.elapsed(), cache.api.reviews()), (Duration::ZERO, reviews));
    cache.api.is(Mood::Answers);
    assert!(!cache.keys.check(READING).await);
    assert_eq!(cache.asked(&cache.api.token(3602)).await, "accepted");
    assert_eq!(cache.api.reviews(), reviews + 1);
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_is_slow_for_days_is_not_away_for_a_day() {
    let cache = Cache::ready().await;
    let (readiness, shutdown) = (Readiness::new(), tokio_util::sync::CancellationToken::new());
    let following = Arc::clone(&cache.keys).follow(readiness.condition("API server"), shutdown.clone());
    let following = tokio::spawn(following);
    cache.api.is(Mood::Slow);
    let end = Instant::now() + 2 * DAY;
    while Instant::now() < end {
        tokio::time::sleep(Duration::from_mins(17)).await;
        assert_eq!(cache.asked(&cache.api.token(3600)).await, "accepted");
    }
    shutdown.cancel();
    ended(following).await;
}

#[tokio::test(start_paused = true)]
async fn that_a_caller_found_the_api_server_away_is_told_and_so_is_its_return() {
    let cache = Cache::ready().await;
    let (readiness, shutdown) = (Readiness::new(), tokio_util::sync::CancellationToken::new());
    let following = Arc::clone(&cache.keys).follow(readiness.condition("API server"), shutdown.clone());
    let following = tokio::spawn(following);
    tokio::time::sleep(Duration::from_secs(5)).await;
    cache.api.is(Mood::Away);
    assert_eq!(cache.asked(&cache.api.token(3600)).await, "accepted");
    tokio::time::sleep(Duration::from_secs(3)).await;
    let report = readiness.report().to_string();
    assert!(report.contains("the API server is away since"), "{report}");
    cache.api.is(Mood::Answers);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!((readiness.report().to_string().as_str(), cache.keys.away()), ("ready\n", false));
    shutdown.cancel();
    ended(following).await;
}

#[tokio::test(start_paused = true)]
async fn without_the_api_server_a_day_changes_nothing_and_more_than_a_day_does() {
    let cache = Cache::ready().await;
    cache.api.is(Mood::Away);
    let (fresh, over) = (cache.api.token(7 * 24 * 3600), cache.api.token(-3600));
    assert_eq!(cache.asked(&over).await, "refused", "it was over before");
    let another = Token::new(Zeroizing::new(
        Signer::new("a").sign(&json!({"iss": ISSUER, "sub": NODE, "aud": ["larder-cache"], "exp": now() + 60})),
    ));
    assert_eq!(cache.asked(&another).await, "refused", "of another cluster");
    tokio::time::advance(Duration::from_secs(24 * 3600 - 1)).await;
    assert_eq!((cache.asked(&over).await, cache.asked(&fresh).await), ("refused", "accepted"));
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!((cache.asked(&over).await, cache.asked(&fresh).await), ("cannot tell", "cannot tell"));
    cache.api.is(Mood::Answers);
    cache.keys.check(READING).await;
    assert_eq!((cache.asked(&over).await, cache.asked(&fresh).await), ("refused", "accepted"));
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_refuses_us_is_not_away() {
    let cache = Cache::ready().await;
    let readiness = Readiness::new();
    cache.callers.tell(readiness.condition("token reviews"));
    cache.api.is(Mood::RefusesReviews);
    assert_eq!(cache.asked(&cache.api.token(3600)).await, "accepted", "its own time is not over");
    assert_eq!(cache.asked(&cache.api.token(-3600)).await, "refused", "an old token does not work for ever");
    let report = readiness.report().to_string();
    assert!(report.contains("refuses (403)") && report.contains("may this account create tokenreviews?"), "{report}");
    cache.api.is(Mood::Answers);
    assert_eq!(cache.asked(&cache.api.token(3601)).await, "accepted");
    assert_eq!(readiness.report().to_string(), "ready\n");
}

#[tokio::test]
async fn a_restart_without_the_api_server_goes_on_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let folder = SavedFolder::new(&folder.path().join("saved"));
    let (readiness, shutdown) = (Readiness::new(), tokio_util::sync::CancellationToken::new());
    let api = Api::new();
    let first = Cache::new(&api, Some(folder.clone()));
    let condition = readiness.condition("API server");
    let following = tokio::spawn(Arc::clone(&first.keys).follow(condition.clone(), shutdown.clone()));
    until("the keys are written", || folder.read("keys.json").unwrap().is_some()).await;
    shutdown.cancel();
    ended(following).await;
    api.is(Mood::Away);
    let mut old: Value = serde_json::from_str(&folder.read("keys.json").unwrap().unwrap()).unwrap();
    let mut reached = |ago: u64| {
        old["reached"] = json!(now() - ago);
        folder.write("keys.json", &old.to_string()).unwrap();
    };
    reached(2 * 3600);
    let second = Cache::new(&api, Some(folder.clone()));
    assert_eq!(second.asked(&api.token(-3600)).await, "accepted", "nobody could renew it");
    assert_eq!(second.asked(&api.token(-3 * 3600)).await, "refused", "it was over before");

    reached(24 * 3600);
    let third = Cache::new(&api, Some(folder.clone()));
    assert_eq!(third.asked(&api.token(-3600)).await, "cannot tell", "the day is over, restart or not");

    folder.remove("keys.json").unwrap();
    let fourth = Cache::new(&api, Some(folder));
    assert_eq!(fourth.asked(&api.token(3600)).await, "cannot tell");
    let (shutdown, readiness) = (tokio_util::sync::CancellationToken::new(), Readiness::new());
    let following = tokio::spawn(fourth.keys.follow(readiness.condition("API server"), shutdown.clone()));
    until("what is wrong is told", || !readiness.report().lines.is_empty()).await;
    let report = readiness.report().to_string();
    assert!(report.contains("API server is away since") && report.contains("no keys are saved"), "{report}");
    shutdown.cancel();
    ended(following).await;
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_stops_nothing_and_is_told_until_it_can() {
    let folder = tempfile::tempdir().unwrap();
    // As root, a test is stopped by no right; a file where a folder should be stops everybody.
    let path = folder.path().join("saved");
    std::fs::write(&path, "").unwrap();
    let api = Api::new();
    api.is(Mood::Away);
    let cache = Cache::new(&api, Some(SavedFolder::new(&path)));
    let (readiness, shutdown) = (Readiness::new(), tokio_util::sync::CancellationToken::new());
    let following = tokio::spawn(Arc::clone(&cache.keys).follow(readiness.condition("API server"), shutdown.clone()));
    let says = async |part: &str, is_there: bool| {
        until(&format!("{part:?} is told: {is_there}"), || readiness.report().to_string().contains(part) == is_there)
            .await;
    };
    says("keys.json is not written: ", true).await;
    api.is(Mood::Answers);
    says("the API server is away", false).await;
    assert_eq!(cache.asked(&api.token(3600)).await, "accepted");
    says("keys.json is not written: ", true).await;
    std::fs::remove_file(&path).unwrap();
    // A key that is not among them has them read, and written, at once.
    cache.keys.accepted(&Token::new(Zeroizing::new(Signer::new("b").sign(&json!({})))));
    says("keys.json is not written: ", false).await;
    assert!(path.join("keys.json").exists());
    shutdown.cancel();
    ended(following).await;
}
