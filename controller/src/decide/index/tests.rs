use proptest::prelude::*;

use super::*;
use crate::decide::filter::LeftOut;
use crate::decide::glob::Pattern;
use crate::decide::labels::{Expression, Selector};
use crate::decide::pod::{Ended, IGNORE, Place, PullPolicy, Use};

const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn image(text: &str) -> Image {
    Image::parse(text).unwrap()
}

fn second(second: i64) -> Moment {
    Moment::from_seconds(1_700_000_000 + second)
}

fn used(written: &str) -> Use {
    Use {
        written: written.into(),
        place: Place::Container,
        policy: Some(PullPolicy::IfNotPresent),
        image_id: String::new(),
    }
}

fn pod(name: &str, images: &[&str]) -> Pod {
    let uses = images.iter().map(|image| used(image)).collect();
    Pod { namespace: "shop".into(), name: name.into(), node: Some("n1".into()), uses, ..Pod::default() }
}

fn index() -> Index {
    Index::new(Filters::default())
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn pods_come_and_go() {
    let mut index = index();
    let nginx = image("nginx");
    assert_eq!(
        index.pod(&pod("a", &["nginx", "docker.io/library/nginx:latest"]), second(0)),
        Changed::from([nginx.clone()])
    );
    index.pod(&Pod { node: Some("n2".into()), of_daemon_set: true, ..pod("b", &["nginx", "redis"]) }, second(1));
    let wanted = index.image(&nginx, second(2)).unwrap();
    assert_eq!((wanted.used_by, wanted.nodes, wanted.is_of_daemon_set), (2, 2, true));
    assert_eq!((wanted.first_used, wanted.last_used), (Some(second(0)), Some(second(2))));
    assert_eq!(wanted.users.iter().map(|user| &*user.name).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(index.pod(&pod("a", &["nginx", "docker.io/library/nginx:latest"]), second(3)), Changed::new());
    assert_eq!(index.pod(&pod("a", &["redis"]), second(4)).len(), 2);
    assert_eq!(index.image(&nginx, second(5)).unwrap().used_by, 1);
    index.pod_gone("shop", "b", second(6));
    let wanted = index.image(&nginx, second(9)).unwrap();
    assert_eq!((wanted.used_by, wanted.nodes, wanted.is_of_daemon_set), (0, 0, false));
    assert_eq!((wanted.first_used, wanted.last_used), (Some(second(0)), Some(second(6))));
    index.forget(&nginx);
    assert_eq!(index.image(&nginx, second(9)), None);
    assert_eq!(index.pod_gone("nobody", "knows", second(9)), Changed::new());
}

#[test]
fn a_pod_that_has_ended_is_no_use_but_a_last_one() {
    let mut index = index();
    let ended = |at| Pod { ended: Some(Ended { at }), ..pod("job", &["nginx"]) };
    index.pod(&Pod { created: Some(second(-50)), ..ended(Some(second(-10))) }, second(0));
    let wanted = index.image(&image("nginx"), second(5)).unwrap();
    assert_eq!((wanted.used_by, wanted.ended), (0, 1));
    assert_eq!((wanted.first_used, wanted.last_used), (Some(second(-50)), Some(second(-10))));
    // A node whose clock is ahead ends nothing in the future.
    index.pod(&Pod { name: "late".into(), ..ended(Some(second(999))) }, second(6));
    assert_eq!(index.image(&image("nginx"), second(7)).unwrap().last_used, Some(second(6)));
    // Seen again, an end that nobody has dated is not later.
    index.pod(&Pod { name: "undated".into(), ..ended(None) }, second(8));
    assert_eq!(index.pod(&Pod { name: "undated".into(), ..ended(None) }, second(20)), Changed::new());
    assert_eq!(index.image(&image("nginx"), second(21)).unwrap().last_used, Some(second(8)));
}

#[test]
fn what_is_left_out_says_why_and_a_use_that_counts_makes_good_for_one_that_does_not() {
    let filters = Filters { exclude: vec![Pattern::parse("**:dev").unwrap()], ..Filters::default() };
    let mut index = Index::new(filters);
    index.pod(&pod("a", &["nginx:dev"]), second(0));
    index.pod(&Pod { ignored: true, ..pod("b", &["nginx:1"]) }, second(0));
    let never = Use { policy: Some(PullPolicy::Never), ..used("redis:7") };
    let mut two = pod("c", &["redis:7"]);
    two.uses.insert(0, never.clone());
    index.pod(&two, second(0));
    let of = |index: &Index, text: &str| index.image(&image(text), second(1)).unwrap();
    assert_eq!(of(&index, "nginx:dev").left_out, BTreeMap::from([(LeftOut::Excluded("**:dev".into()), 1)]));
    assert_eq!(of(&index, "nginx:1").left_out, BTreeMap::from([(LeftOut::PodIgnored, 1)]));
    assert_eq!((of(&index, "redis:7").used_by, of(&index, "redis:7").left_out.len()), (1, 0));
    assert_eq!(of(&index, "nginx:dev").last_used, None);
    index.pod(&Pod { uses: vec![never], ..two }, second(2));
    assert_eq!(of(&index, "redis:7").left_out, BTreeMap::from([(LeftOut::Policy(PullPolicy::Never), 1)]));
    index.pod_gone("shop", "a", second(3));
    assert_eq!(index.image(&image("nginx:dev"), second(3)), None, "nothing is remembered of what never counted");
}

#[test]
fn whose_an_image_is_is_known_while_its_ended_pods_lie_there() {
    let mut index = index();
    let owners =
        |index: &Index| -> Vec<String> { index.owners(&image("nginx")).0.iter().map(ToString::to_string).collect() };
    index.pod(&Pod { ended: Some(Ended { at: Some(second(1)) }), ..pod("job", &["nginx"]) }, second(2));
    assert_eq!(owners(&index), ["shop"]);
    index.pod(&Pod { namespace: "web".into(), ..pod("a", &["nginx"]) }, second(3));
    assert_eq!(owners(&index), ["web"], "who uses it now");
    index.pod_gone("web", "a", second(4));
    assert_eq!(owners(&index), ["shop"]);
    index.pod_gone("shop", "job", second(5));
    assert!(owners(&index).is_empty());
}

#[test]
fn what_all_leave_out_is_listed_with_how_many_they_are() {
    let mut index = index();
    for name in ["a", "b"] {
        index.pod(&Pod { ignored: true, ..pod(name, &["nginx", "redis"]) }, second(0));
    }
    index.pod(&pod("c", &["redis"]), second(0));
    let left_out: Vec<_> = index.left_out().map(|(image, why, pods)| (image.clone(), why.reason(), pods)).collect();
    assert_eq!(left_out, [(image("nginx"), "PodIgnored", 2)]);
}

#[test]
fn labels_of_a_namespace_count_for_its_pods_before_and_after() {
    let mut index = index();
    index.pod(&pod("a", &["nginx"]), second(0));
    let changed = index.namespace("shop", labels(&[(IGNORE, "true")]), second(1));
    assert_eq!(changed, Changed::from([image("nginx")]));
    let wanted = index.image(&image("nginx"), second(5)).unwrap();
    assert_eq!((wanted.used_by, wanted.last_used), (0, Some(second(1))));
    assert_eq!(wanted.left_out, BTreeMap::from([(LeftOut::NamespaceIgnored, 1)]));
    assert_eq!(index.namespace("shop", labels(&[(IGNORE, "true"), ("a", "b")]), second(2)), Changed::new());
    index.namespace("shop", labels(&[]), second(3));
    assert_eq!(index.image(&image("nginx"), second(5)).unwrap().used_by, 1);
}

#[test]
fn a_namespace_that_nobody_has_told_of_has_its_name() {
    let only =
        Expression { key: "kubernetes.io/metadata.name".into(), operator: "In".into(), values: vec!["shop".into()] };
    let mut index = Index::new(Filters { namespaces: Selector::new([], [only]).unwrap(), ..Filters::default() });
    index.pod(&pod("a", &["nginx"]), second(0));
    index.pod(&Pod { namespace: "other".into(), ..pod("a", &["nginx"]) }, second(0));
    let wanted = index.image(&image("nginx"), second(0)).unwrap();
    assert_eq!((wanted.used_by, wanted.left_out), (1, BTreeMap::from([(LeftOut::NamespaceNotSelected, 1)])));
}

#[test]
fn what_running_pods_have_is_counted_by_digest() {
    let mut index = index();
    let running = |name: &str, id: &str| {
        let mut pod = pod(name, &["nginx"]);
        pod.uses[0].image_id = id.into();
        pod.uses[0].policy = Some(PullPolicy::Always);
        pod
    };
    index.pod(&running("a", &format!("docker.io/library/nginx@sha256:{HEX}")), second(0));
    index.pod(&running("b", &format!("docker.io/library/nginx@sha256:{HEX}")), second(0));
    index.pod(&running("c", &format!("sha256:{}", HEX.replace('e', "f"))), second(0));
    let wanted = index.image(&image("nginx"), second(0)).unwrap();
    let digest = Digest::parse(&format!("sha256:{HEX}")).unwrap();
    assert_eq!(wanted.digests, BTreeMap::from([(digest, 2)]));
    assert!(wanted.is_always);
    index.pod_gone("shop", "a", second(1));
    index.pod_gone("shop", "b", second(1));
    assert_eq!(index.image(&image("nginx"), second(1)).unwrap().digests, BTreeMap::new());
}

#[test]
fn what_is_no_reference_is_told_and_the_rest_of_the_pod_counts() {
    let mut index = index();
    index.pod(&pod("a", &["Nginx", "redis"]), second(0));
    let told: Vec<Unreadable> = index.unreadable().collect();
    assert_eq!((told.len(), told[0].written.as_str(), &*told[0].pod.name), (1, "Nginx", "a"));
    assert!(told[0].reason.contains("lower-case"));
    assert_eq!(index.image(&image("redis"), second(0)).unwrap().used_by, 1);
}

#[test]
fn what_a_new_list_does_not_name_is_gone_at_its_end_and_not_before() {
    let mut index = index();
    index.pod(&pod("a", &["nginx"]), second(0));
    index.pod(&pod("b", &["nginx"]), second(0));
    index.begin_listing();
    index.pod(&pod("b", &["nginx"]), second(1));
    assert_eq!(index.image(&image("nginx"), second(1)).unwrap().used_by, 2);
    assert_eq!(index.end_listing(second(2)), Changed::from([image("nginx")]));
    assert_eq!((index.image(&image("nginx"), second(2)).unwrap().used_by, index.pods()), (1, 1));
}

#[test]
fn what_cannot_be_read_in_a_new_list_is_there_as_it_was() {
    let mut index = index();
    index.pod(&pod("a", &["nginx"]), second(0));
    index.begin_listing();
    index.pod_is_there("shop", "a");
    index.pod_is_there("shop", "b");
    index.pod_is_there("nowhere", "a");
    assert!(index.end_listing(second(2)).is_empty());
    assert_eq!((index.image(&image("nginx"), second(2)).unwrap().used_by, index.pods()), (1, 1));
}

#[test]
fn the_record_of_an_object_is_remembered() {
    let mut index = index();
    index.record(&image("nginx"), Some(second(-90)), Some(second(-10)));
    index.pod(&pod("a", &["nginx"]), second(0));
    index.pod_gone("shop", "a", second(1));
    let wanted = index.image(&image("nginx"), second(5)).unwrap();
    assert_eq!((wanted.first_used, wanted.last_used), (Some(second(-90)), Some(second(1))));
}

#[test]
fn names_of_nodes_that_are_no_more_are_dropped() {
    let mut index = index();
    for node in 0..5000 {
        index.pod(&Pod { node: Some(format!("node-{node}")), ..pod("a", &["nginx"]) }, second(node));
    }
    assert!(index.nodes.len() <= MINIMUM_NODES);
}

/// Were an event to cost what there are Pods, this would take minutes.
#[test]
fn many_pods_of_few_images() {
    let mut index = index();
    for n in 0..20_000 {
        let node = Some(format!("node-{}", n % 500));
        index.pod(&Pod { node, ..pod(&format!("pod-{n}"), &["nginx", "ghcr.io/mesh/proxy:1"]) }, second(0));
    }
    let wanted = index.image(&image("nginx"), second(0)).unwrap();
    assert_eq!((wanted.used_by, wanted.nodes, wanted.users.len()), (20_000, 500, NAMED_USERS));
    index.begin_listing();
    assert_eq!(index.end_listing(second(1)).len(), 2);
    assert_eq!((index.pods(), index.image(&image("nginx"), second(9)).unwrap().used_by), (0, 0));
}

#[derive(Debug, Clone)]
enum Event {
    Pod(Box<Pod>),
    Gone(String, String),
    Namespace(String, Labels),
    NamespaceGone(String),
    /// A new list that names of the Pods there are those with an even, or odd, length of some hash.
    Listing(u8),
}

fn names(prefix: &'static str, many: u8) -> impl Strategy<Value = String> {
    (0..many).prop_map(move |n| format!("{prefix}{n}"))
}

fn uses() -> impl Strategy<Value = Use> {
    let written = prop::sample::select(vec!["nginx", "nginx:1", "nginx:dev", "a.io/b@sha256:", "Wrong", "ghcr.io/x/y"]);
    let policy = prop::sample::select(vec![
        None,
        Some(PullPolicy::Always),
        Some(PullPolicy::IfNotPresent),
        Some(PullPolicy::Never),
    ]);
    (written, policy, 0..4_u8).prop_map(|(written, policy, digest)| {
        let written = if written.ends_with(':') { format!("{written}{HEX}") } else { written.to_owned() };
        let name = Image::parse(&written).map(|image| image.name().to_owned()).unwrap_or_default();
        let image_id = match digest {
            0 => String::new(),
            1 => format!("sha256:{HEX}"),
            n => format!("{name}@sha256:{}", HEX.replace('0', &n.to_string())),
        };
        Use { written, place: Place::Container, policy, image_id }
    })
}

fn pods() -> impl Strategy<Value = Pod> {
    let node = prop::option::of(names("node", 3));
    (names("ns", 3), names("pod", 4), node, prop::collection::vec(uses(), 0..4), any::<[bool; 4]>()).prop_map(
        |(namespace, name, node, uses, [ignored, daemon_set, has_ended, dated])| Pod {
            ended: (has_ended && ignored != daemon_set).then_some(Ended { at: dated.then_some(second(3)) }),
            of_daemon_set: daemon_set,
            is_mirror: false,
            created: dated.then_some(second(-3)),
            namespace,
            name,
            node,
            ignored,
            uses,
        },
    )
}

fn events() -> impl Strategy<Value = Event> {
    let bears = prop::sample::select(vec![labels(&[]), labels(&[(IGNORE, "true")]), labels(&[("env", "test")])]);
    prop_oneof![
        6 => pods().prop_map(|pod| Event::Pod(Box::new(pod))),
        2 => (names("ns", 3), names("pod", 4)).prop_map(|(namespace, name)| Event::Gone(namespace, name)),
        2 => (names("ns", 3), bears).prop_map(|(name, labels)| Event::Namespace(name, labels)),
        1 => names("ns", 3).prop_map(Event::NamespaceGone),
        1 => (0..4_u8).prop_map(Event::Listing),
    ]
}

fn strict() -> Filters {
    let not_test = Expression { key: "env".into(), operator: "NotIn".into(), values: vec!["test".into()] };
    Filters {
        namespaces: Selector::new([], [not_test]).unwrap(),
        exclude: vec![Pattern::parse("**:dev").unwrap()],
        ..Filters::default()
    }
}

/// The Pods and labels that are left, and an index that was told of all of it.
#[derive(Debug)]
struct World {
    pods: BTreeMap<(String, String), Pod>,
    namespaces: BTreeMap<String, Labels>,
    index: Index,
}

impl World {
    fn happens(&mut self, event: Event, now: Moment) {
        match event {
            Event::Pod(pod) => {
                self.index.pod(&pod, now);
                self.pods.insert((pod.namespace.clone(), pod.name.clone()), *pod);
            }
            Event::Gone(namespace, name) => {
                self.index.pod_gone(&namespace, &name, now);
                self.pods.remove(&(namespace, name));
            }
            Event::Namespace(name, labels) => {
                self.index.namespace(&name, labels.clone(), now);
                self.namespaces.insert(name, labels);
            }
            Event::NamespaceGone(name) => {
                self.index.namespace_gone(&name, now);
                self.namespaces.remove(&name);
            }
            Event::Listing(which) => {
                self.index.begin_listing();
                self.pods.retain(|(_, name), _| !name.ends_with(&which.to_string()));
                for pod in self.pods.values() {
                    self.index.pod(pod, now);
                }
                self.index.end_listing(now);
            }
        }
    }

    fn built_anew(&self, now: Moment) -> Index {
        let mut index = Index::new(strict());
        for pod in self.pods.values() {
            index.pod(pod, now);
        }
        for (name, labels) in &self.namespaces {
            index.namespace(name, labels.clone(), now);
        }
        index
    }
}

fn without_times(index: &Index, image: &Image) -> Wanted {
    Wanted { first_used: None, last_used: None, ..index.image(image, second(0)).unwrap_or_default() }
}

proptest! {
    #[test]
    fn it_says_what_one_says_that_was_built_from_what_is_left(events in prop::collection::vec(events(), 0..40)) {
        let mut world = World { pods: BTreeMap::new(), namespaces: BTreeMap::new(), index: Index::new(strict()) };
        let mut last_seen: BTreeMap<Image, Moment> = BTreeMap::new();
        for (at, event) in (10..).zip(events) {
            let now = second(at);
            world.happens(event, now);
            let scratch = world.built_anew(now);
            let all: BTreeSet<Image> = world.index.images().chain(scratch.images()).cloned().collect();
            for image in all {
                let (is, should) = (without_times(&world.index, &image), without_times(&scratch, &image));
                prop_assert_eq!(&is, &should, "{}", image);
                if should.is_used() {
                    last_seen.insert(image.clone(), now);
                }
                if let Some(seen) = last_seen.get(&image) {
                    let last = world.index.image(&image, now).unwrap().last_used.unwrap();
                    prop_assert!(*seen <= last && last <= now, "{}: {:?} after {:?}", image, last, seen);
                }
            }
            let mut unreadable: Vec<_> = world.index.unreadable().map(|one| (one.pod, one.written)).collect();
            let mut should: Vec<_> = scratch.unreadable().map(|one| (one.pod, one.written)).collect();
            unreadable.sort();
            should.sort();
            prop_assert_eq!(unreadable, should);
        }
        let names: Vec<_> = world.pods.keys().cloned().collect();
        for (namespace, name) in names {
            world.happens(Event::Gone(namespace, name), second(100));
        }
        let all: Vec<Image> = world.index.images().cloned().collect();
        for image in all {
            world.index.forget(&image);
        }
        prop_assert_eq!(world.index.images().count(), 0, "nothing stays behind");
    }
}
