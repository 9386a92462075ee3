//! Values that are refused before anything is sent, with a message that names what is wrong.

use std::io::Write as _;

use anyhow::{Context as _, Result, bail, ensure};
use larder_test_chart::helm::Helm;

/// Values, and what has to be said about them.
pub(crate) struct Refusal {
    pub(crate) name: &'static str,
    values: &'static str,
    says: &'static [&'static str],
}

impl Refusal {
    pub(crate) fn run(&self, helm: &Helm) -> Result<()> {
        let mut file = tempfile::NamedTempFile::new().context("make a file of values")?;
        file.write_all(self.values.as_bytes())?;
        let Err(error) = helm.template(file.path(), None, &[]) else { bail!("{} is not refused", self.values) };
        let said = format!("{error:#}");
        for words in self.says {
            ensure!(said.contains(words), "it does not say {words:?}:\n{said}");
        }
        Ok(())
    }
}

const fn refusal(name: &'static str, values: &'static str, says: &'static [&'static str]) -> Refusal {
    Refusal { name, values, says }
}

#[rustfmt::skip]
pub(crate) const ALL: &[Refusal] = &[
    refusal("unknown_value", "engin: auto", &["additional properties 'engin' not allowed"]),
    refusal("unknown_engine", "engine: docker", &["/engine", "'auto', 'containerd', 'crio'"]),
    refusal("unknown_agent_value", "agent: {privilege: true}", &["/agent", "'privilege' not allowed"]),
    refusal("relative_crio_config", "agent: {crioConfig: etc/crio.conf}", &["/agent/crioConfig"]),
    refusal("misspelled_crio_value", "agent: {crioConf: /etc/crio/crio.conf}", &["/agent", "'crioConf' not allowed"]),
    refusal("crio_registries_as_one_text", "agent: {crioRegistries: 'docker.io,quay.io'}", &["/agent/crioRegistries"]),
    refusal("crio_registry_with_scheme", "agent: {crioRegistries: ['https://quay.io']}", &["/agent/crioRegistries/0"]),
    refusal("crio_registry_with_path", "agent: {crioRegistries: [quay.io/team]}", &["/agent/crioRegistries/0"]),
    refusal("crio_registry_in_capitals", "agent: {crioRegistries: [docker.io, Quay.io]}", &["/agent/crioRegistries/1"]),
    refusal("crio_registry_twice", "agent: {crioRegistries: [quay.io, quay.io]}", &["/agent/crioRegistries"]),
    refusal("crio_registry_of_a_pool_with_a_port_out_of_range", "pools: [{name: a, nodeLabel: {key: k, values: [v]}, agent: {crioRegistries: ['quay.io:65536']}}]", &["/pools/0/agent/crioRegistries/0"]),
    refusal("unknown_openshift_value", "openshift: {enable: true}", &["/openshift", "'enable' not allowed"]),
    refusal("openshift_null", "openshift: null", &["missing property 'openshift'"]),
    refusal("openshift_with_everybodys_account", "openshift: {enabled: true}\nserviceAccount: {create: false}", &["would get the agent's rights"]),
    refusal("openshift_with_everybodys_account_by_name", "openshift: {enabled: true}\nserviceAccount: {create: false, name: default}", &["would get the agent's rights"]),
    refusal("unknown_proxy_value", "proxy: {resource: {}}", &["/proxy", "'resource' not allowed"]),
    refusal("root_proxy", "proxy: {runAsUser: 0}", &["/proxy", "'runAsUser' not allowed"]),
    refusal("unknown_image_value", "image: {name: x}", &["/image", "'name' not allowed"]),
    refusal("short_digest", "image: {digest: 'sha256:abc'}", &["/image/digest"]),
    refusal("repository_with_tag", "image: {repository: 'larder:1.0'}", &["/image/repository"]),
    refusal("store_size_without_number", "store: {size: large}", &["/store/size"]),
    refusal("store_size_of_zero", "store: {size: 0GiB}", &["/store/size"]),
    refusal("store_size_in_unknown_unit", "store: {size: 20 parsecs}", &["/store/size"]),
    refusal("relative_store", "store: {path: var/lib/larder}", &["/store/path"]),
    refusal("root_as_store", "store: {path: /}", &["/store/path"]),
    refusal("a_folder_of_the_root_as_store", "store: {path: /srv}", &["/store/path"]),
    refusal("a_store_that_holds_the_agents_journal", "store: {path: /var/lib/larder}", &["where the agent keeps what it changed"]),
    refusal("a_store_above_the_agents_journal", "store: {path: /var/lib/}", &["where the agent keeps what it changed"]),
    refusal("a_store_in_the_agents_journal", "store: {path: /var/lib/larder/node/x}", &["where the agent keeps what it changed"]),
    refusal("a_store_of_a_pool_beside_the_agents_journal", "pools: [{name: a, nodeLabel: {key: k, values: [v]}, store: {path: /var/lib/larder/node-config}}]", &["where the agent keeps what it changed"]),
    refusal("a_port_that_only_root_may_bind", "ports: {mirror: 443}", &["/ports/mirror"]),
    refusal("no_time_to_take_anything_back", "terminationGracePeriodSeconds: 5", &["/terminationGracePeriodSeconds"]),
    refusal("store_of_unknown_type", "store: {type: pvc}", &["/store/type", "'hostPath', 'emptyDir'"]),
    refusal("unknown_registry_value", "registries: {docker.io: {endpoint: []}}", &["/registries/docker.io", "'endpoint' not allowed"]),
    refusal("registry_with_scheme", "registries: {'https://docker.io': {}}", &["/registries", "'https://docker.io' not allowed"]),
    refusal("registry_with_path", "registries: {docker.io/library: {}}", &["/registries", "'docker.io/library' not allowed"]),
    refusal("plain_http_endpoint", "registries: {docker.io: {endpoints: ['http://mirror.example']}}", &["/registries/docker.io/endpoints/0"]),
    refusal("endpoint_without_scheme", "registries: {docker.io: {endpoints: [mirror.example]}}", &["/registries/docker.io/endpoints/0"]),
    refusal("endpoint_with_password", "registries: {docker.io: {endpoints: ['https://a:b@mirror.example']}}", &["/registries/docker.io/endpoints/0"]),
    refusal("ca_that_is_a_path", "registries: {docker.io: {ca: /etc/ca.pem}}", &["/registries/docker.io/ca"]),
    refusal("unknown_policy", "registries: {docker.io: {onOrigin404: keep}}", &["/registries/docker.io/onOrigin404", "'serve', 'refuse'"]),
    refusal("pattern_with_scheme", "allow: ['https://quay.io']", &["/allow/0"]),
    refusal("pattern_in_capitals", "deny: [Quay.io]", &["/deny/0"]),
    refusal("pool_without_label", "pools: [{name: a}]", &["/pools/0", "missing property 'nodeLabel'"]),
    refusal("pool_without_values", "pools: [{name: a, nodeLabel: {key: k, values: []}}]", &["/pools/0/nodeLabel/values"]),
    refusal("pool_called_default", "pools: [{name: default, nodeLabel: {key: k, values: [v]}}]", &["/pools/0/name"]),
    refusal("unknown_pool_value", "pools: [{name: a, nodeLabel: {key: k, values: [v]}, ports: {mirror: 1}}]", &["/pools/0", "'ports' not allowed"]),
    refusal("two_pools_of_one_name", "pools: [{name: a, nodeLabel: {key: k, values: [v]}}, {name: a, nodeLabel: {key: k, values: [w]}}]", &["pools: there are two called a"]),
    refusal("two_ports_alike", "ports: {proxyMetrics: 7441}", &["7441 is taken by another port of these"]),
    refusal("port_out_of_range", "ports: {mirror: 70000}", &["/ports/mirror"]),
    refusal("metrics_on_a_name", "metrics: {address: localhost}", &["/metrics/address"]),
    refusal("both_monitors", "metrics: {podMonitor: {enabled: true}, serviceMonitor: {enabled: true}}", &["would scrape everything twice"]),
    refusal("monitor_without_metrics", "metrics: {enabled: false, podMonitor: {enabled: true}}", &["there is nothing to scrape"]),
    refusal("two_pods_on_a_node", "updateStrategy: {rollingUpdate: {maxSurge: 1}}", &["/updateStrategy/rollingUpdate/maxSurge"]),
    refusal("nobody_unavailable", "updateStrategy: {rollingUpdate: {maxUnavailable: 0}}", &["/updateStrategy/rollingUpdate/maxUnavailable"]),
    refusal("architecture_that_is_not_built", "architectures: [s390x]", &["/architectures/0"]),
    refusal("label_that_is_no_text", "podLabels: {a: 1}", &["/podLabels/a"]),
    refusal("capability_with_prefix_in_small_letters", "agent: {extraCapabilities: [sys_resource]}", &["/agent/extraCapabilities/0"]),
    refusal("registry_in_capitals", "registries: {Quay.io: {}}", &["/registries", "'Quay.io' not allowed"]),
    refusal("registry_with_an_empty_label", "registries: {quay..io: {}}", &["/registries", "'quay..io' not allowed"]),
    refusal("registry_with_a_port_out_of_range", "registries: {'quay.io:65536': {}}", &["/registries", "'quay.io:65536' not allowed"]),
    refusal("registry_with_port_zero", "registries: {'quay.io:0': {}}", &["/registries", "'quay.io:0' not allowed"]),
    refusal("docker_hub_twice", "registries: {docker.io: {}, index.docker.io: {skip: true}}", &["docker.io and index.docker.io are one registry"]),
    refusal("docker_hub_twice_by_aliases", "registries: {registry-1.docker.io: {}, index.docker.io: {}}", &["are one registry, docker.io"]),
    refusal("half_a_ca", "registries: {docker.io: {ca: '-----BEGIN CERTIFICATE-----'}}", &["/registries/docker.io/ca"]),
    refusal("half_a_ca_of_the_corporate_proxy", "corporateProxy: {ca: '-----BEGIN CERTIFICATE-----'}", &["/corporateProxy/ca"]),
    refusal("two_cas_of_the_corporate_proxy", "corporateProxy: {ca: '-----BEGIN CERTIFICATE-----A-----END CERTIFICATE-----', caConfigMap: {name: x}}", &["keep one of them"]),
    refusal("a_config_map_with_a_slash", "corporateProxy: {caConfigMap: {name: a/b}}", &["/corporateProxy/caConfigMap/name"]),
    refusal("endpoint_with_a_port_out_of_range", "registries: {docker.io: {endpoints: ['https://mirror.example:70000']}}", &["/registries/docker.io/endpoints/0"]),
    refusal("pattern_of_three_stars", "allow: ['quay.io/***']", &["/allow/0"]),
    refusal("pattern_of_two_stars_in_a_word", "allow: ['quay.io/a**']", &["/allow/0"]),
    refusal("agent_null", "agent: null", &["missing property 'agent'"]),
    refusal("engine_restart_null", "agent: {engineRestart: null}", &["/agent", "missing property 'engineRestart'"]),
    refusal("liveness_probe_null", "proxy: {livenessProbe: null}", &["/proxy", "missing property 'livenessProbe'"]),
    refusal("common_labels_null", "commonLabels: null", &["missing property 'commonLabels'"]),
    refusal("profile_without_its_file", "agent: {appArmorProfile: {type: Localhost}}", &["/agent/appArmorProfile", "missing property 'localhostProfile'"]),
    refusal("file_without_its_profile", "agent: {seccompProfile: {type: Unconfined, localhostProfile: x}}", &["/agent/seccompProfile/localhostProfile"]),
    refusal("toleration_of_everything_with_a_value", "tolerations: [{operator: Exists, value: x}]", &["/tolerations/0/value"]),
    refusal("toleration_of_no_key", "tolerations: [{operator: Equal, value: x}]", &["/tolerations/0", "missing property 'key'"]),
    refusal("metrics_on_no_address", "metrics: {address: 10.0.0.256}", &["/metrics/address"]),
    refusal("metrics_on_half_an_address", "metrics: {address: '[1:2:3]'}", &["/metrics/address"]),
    refusal("agent_metrics_without_metrics", "metrics: {enabled: false, agent: {enabled: true}}", &["needs metrics.enabled"]),
    refusal("store_above_itself", "store: {path: /var/lib/../../etc}", &["/store/path"]),
    refusal("store_with_a_dot", "store: {path: /var/./lib}", &["/store/path"]),
    refusal("store_size_with_a_zero_before", "store: {size: 020GiB}", &["/store/size"]),
    refusal("store_size_beyond_all_bounds", "store: {size: 9999999TiB}", &["/store/size"]),
    refusal("quota_of_no_class", "priorityClassName: ''\nresourceQuota: {enabled: true}", &["there is no class to let in"]),
    refusal("unknown_cache_value", "cache: {enable: true}", &["/cache", "'enable' not allowed"]),
    refusal("cache_store_of_unknown_type", "cache: {store: {type: pvc}}", &["/cache/store/type", "'emptyDir', 'persistentVolumeClaim', 'bucket'"]),
    refusal("two_replicas_of_a_folder", "cache: {replicas: 2}", &["/cache/replicas"]),
    refusal("two_replicas_of_an_empty_dir", "cache: {replicas: 2, store: {type: emptyDir}}", &["/cache/replicas"]),
    refusal("no_replica", "cache: {replicas: 0}", &["/cache/replicas"]),
    refusal("bucket_without_its_name", "cache: {store: {type: bucket, bucket: {clusterId: a}}}", &["/cache/store/bucket/url"]),
    refusal("bucket_without_a_cluster", "cache: {store: {type: bucket, bucket: {url: 's3://a'}}}", &["/cache/store/bucket/clusterId"]),
    refusal("bucket_at_a_web_server", "cache: {store: {type: bucket, bucket: {url: 'https://a/b', clusterId: a}}}", &["/cache/store/bucket/url"]),
    refusal("bucket_with_a_key_in_its_endpoint", "cache: {store: {type: bucket, bucket: {url: 's3://a', clusterId: a, endpoint: 'https://key:secret@minio'}}}", &["/cache/store/bucket/endpoint"]),
    refusal("misspelled_bucket_value", "cache: {store: {bucket: {cluster: a}}}", &["/cache/store/bucket", "'cluster' not allowed"]),
    refusal("cluster_in_capitals", "cache: {store: {bucket: {clusterId: Prod}}}", &["/cache/store/bucket/clusterId"]),
    refusal("two_certificates", "cache: {tls: {publicAuthority: true, secretName: a, certManager: {issuerRef: {name: b}}}}", &["keep one of them"]),
    refusal("a_certificate_that_nodes_cannot_check", "cache: {tls: {secretName: a}}", &["nodes have to check", "publicAuthority: true"]),
    refusal("an_issuer_whose_authority_nobody_names", "cache: {tls: {certManager: {issuerRef: {name: a}}}}", &["nodes have to check"]),
    refusal("an_authority_for_its_own_certificate", "cache: {tls: {caConfigMap: {name: a}}}", &["reaches the nodes by itself"]),
    refusal("two_authorities", "cache: {tls: {secretName: a, publicAuthority: true, caConfigMap: {name: a}}}", &["caConfigMap.name and publicAuthority are all set"]),
    refusal("half_an_authority", "cache: {tls: {secretName: a, ca: '-----BEGIN CERTIFICATE-----'}}", &["/cache/tls/ca"]),
    refusal("audience_with_a_comma", "cache: {token: {audience: 'a,b'}}", &["/cache/token/audience"]),
    refusal("a_token_of_a_minute", "cache: {token: {expirationSeconds: 60}}", &["/cache/token/expirationSeconds"]),
    refusal("nodes_with_the_rights_of_the_cache", "cache: {serviceAccount: {create: false, name: larder-node}}", &["rights that nodes must not have"]),
    refusal("one_account_for_all", "serviceAccount: {create: false}\ncache: {serviceAccount: {create: false}}", &["rights that nodes must not have"]),
    refusal("another_cache_with_a_password", "cache: {external: {url: 'https://a:b@cache.example'}}", &["/cache/external/url"]),
    refusal("another_cache_with_a_path", "cache: {external: {url: 'https://cache.example/v2/x'}}", &["/cache/external/url"]),
    refusal("a_token_in_the_clear", "cache: {external: {url: 'http://cache.example', tokenSecret: {name: a}}}", &["in the clear"]),
    refusal("a_token_for_no_other_cache", "cache: {external: {tokenSecret: {name: a}}}", &["without url there is no other cache"]),
    refusal("an_address_without_a_port", "cache: {external: {url: 'https://cache.example', addresses: [10.0.0.1]}}", &["/cache/external/addresses/0"]),
    refusal("two_authorities_of_another_cache", "cache: {external: {url: 'https://a', ca: '-----BEGIN CERTIFICATE-----A-----END CERTIFICATE-----', caConfigMap: {name: x}}}", &["cache.external: ca and caConfigMap.name"]),
    refusal("no_time_for_what_is_under_way", "cache: {terminationGracePeriodSeconds: 10}", &["/cache/terminationGracePeriodSeconds"]),
    refusal("cache_on_one_address", "cache: {address: 10.0.0.1}", &["/cache/address"]),
    refusal("cache_null", "cache: null", &["missing property 'cache'"]),
    refusal("startup_probe", "proxy: {startupProbe: {}}", &["/proxy", "'startupProbe' not allowed"]),
];
