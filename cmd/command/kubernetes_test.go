package command

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	admission "k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

// kustomization is what we use of the format.
type kustomization struct {
	metav1.TypeMeta

	Namespace string   `json:"namespace"`
	Resources []string `json:"resources"`
	Images    []struct {
		Name    string `json:"name"`
		NewName string `json:"newName"`
		NewTag  string `json:"newTag"`
	} `json:"images"`
	Settings []struct {
		Name     string   `json:"name"`
		Literals []string `json:"literals"`
	} `json:"configMapGenerator"`
}

// cluster is what the tests need of a Cluster of CloudNativePG.
type cluster struct {
	metav1.TypeMeta
	metav1.ObjectMeta `json:"metadata"`

	Spec struct {
		Managed struct {
			Roles []struct {
				Name           string   `json:"name"`
				Login          bool     `json:"login"`
				InRoles        []string `json:"inRoles"`
				PasswordSecret struct {
					Name string `json:"name"`
				} `json:"passwordSecret"`
			} `json:"roles"`
		} `json:"managed"`
	} `json:"spec"`
}

// manifests is what deploy/kubernetes has, by kind and name.
type manifests struct {
	kustomization kustomization
	namespaces    map[string]*corev1.Namespace
	accounts      map[string]*corev1.ServiceAccount
	services      map[string]*corev1.Service
	deployments   map[string]*appsv1.Deployment
	jobs          map[string]*batchv1.Job
	budgets       map[string]*policyv1.PodDisruptionBudget
	networks      map[string]*networkingv1.NetworkPolicy
	clusters      map[string]*cluster
}

const manifestsDir = "deploy/kubernetes"

// readManifests reads them with Kubernetes's own types, and refuses what those do not have.
func readManifests(t *testing.T) *manifests {
	t.Helper()
	m := &manifests{
		namespaces: map[string]*corev1.Namespace{}, accounts: map[string]*corev1.ServiceAccount{},
		services: map[string]*corev1.Service{}, deployments: map[string]*appsv1.Deployment{},
		jobs: map[string]*batchv1.Job{}, budgets: map[string]*policyv1.PodDisruptionBudget{},
		networks: map[string]*networkingv1.NetworkPolicy{}, clusters: map[string]*cluster{},
	}
	strictly(t, fromTop(t, manifestsDir+"/kustomization.yaml"), &m.kustomization)
	files, err := os.ReadDir(filepath.Join("..", "..", manifestsDir))
	require.NoError(t, err)
	var there []string
	for _, f := range files {
		if f.Name() != "kustomization.yaml" {
			there = append(there, f.Name())
		}
	}
	require.ElementsMatch(t, there, m.kustomization.Resources)
	for _, file := range there {
		for text := range strings.SplitSeq(fromTop(t, manifestsDir+"/"+file), "\n---\n") {
			var kind metav1.TypeMeta
			require.NoError(t, yaml.Unmarshal([]byte(text), &kind), file)
			switch kind.APIVersion + " " + kind.Kind {
			case "v1 Namespace":
				add(t, m.namespaces, text)
			case "v1 ServiceAccount":
				add(t, m.accounts, text)
			case "v1 Service":
				add(t, m.services, text)
			case "apps/v1 Deployment":
				add(t, m.deployments, text)
			case "batch/v1 Job":
				add(t, m.jobs, text)
			case "policy/v1 PodDisruptionBudget":
				add(t, m.budgets, text)
			case "networking.k8s.io/v1 NetworkPolicy":
				add(t, m.networks, text)
			case "postgresql.cnpg.io/v1 Cluster":
				// The types of the operator are none that a test could import.
				var c cluster
				require.NoError(t, yaml.Unmarshal([]byte(text), &c))
				m.clusters[c.Name] = &c
			default:
				require.Fail(t, "what is this?", "%s: %+v", file, kind)
			}
		}
	}
	return m
}

// add reads one manifest.
func add[T any, P interface {
	*T
	metav1.Object
}](t *testing.T, to map[string]P, text string,
) {
	t.Helper()
	read := P(new(T))
	strictly(t, text, read)
	require.NotContains(t, to, read.GetName())
	to[read.GetName()] = read
}

// strictly reads YAML as Kubernetes does, which tells aB from ab.
func strictly(t *testing.T, text string, to any) {
	t.Helper()
	asJSON, err := yaml.YAMLToJSONStrict([]byte(text))
	require.NoError(t, err)
	problems, err := kjson.UnmarshalStrict(asJSON, to)
	require.NoError(t, err)
	require.Empty(t, problems)
}

// pods are the templates of the pods, by the names of what makes them.
func (m *manifests) pods() map[string]corev1.PodTemplateSpec {
	pods := map[string]corev1.PodTemplateSpec{}
	for name, d := range m.deployments {
		pods[name] = d.Spec.Template
	}
	for name, j := range m.jobs {
		pods[name] = j.Spec.Template
	}
	return pods
}

// selected are the names of those whose pods a selector finds.
func (m *manifests) selected(t *testing.T, s *metav1.LabelSelector) []string {
	t.Helper()
	selector, err := metav1.LabelSelectorAsSelector(s)
	require.NoError(t, err)
	var names []string
	for name, pod := range m.pods() {
		if selector.Matches(labels.Set(pod.Labels)) {
			names = append(names, name)
		}
	}
	for name := range m.clusters {
		if selector.Matches(labels.Set{"cnpg.io/cluster": name}) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// The names that belong together agree.
func TestKubernetesNames(t *testing.T) {
	t.Parallel()
	m := readManifests(t)
	require.Contains(t, m.namespaces, m.kustomization.Namespace)
	require.ElementsMatch(t, []string{"riverbeat-api", "riverbeat-worker"}, slices.Collect(maps.Keys(m.deployments)))
	require.Len(t, m.jobs, 1)

	for name, d := range m.deployments {
		only := []string{name}
		require.Equal(t, only, m.selected(t, d.Spec.Selector))
		require.Greater(t, *d.Spec.Replicas, int32(1))
		require.Equal(t, only, m.selected(t, m.budgets[name].Spec.Selector), "the disruption budget of the same name")
		require.Equal(t, 1, m.budgets[name].Spec.MaxUnavailable.IntValue())
		for _, spread := range d.Spec.Template.Spec.TopologySpreadConstraints {
			require.Equal(t, only, m.selected(t, spread.LabelSelector))
		}
	}
	require.Len(t, m.budgets, len(m.deployments))

	ports := func(names []string) []string {
		var ports []string
		for _, name := range names {
			for _, c := range m.pods()[name].Spec.Containers {
				for _, p := range c.Ports {
					ports = append(ports, p.Name)
				}
			}
		}
		return ports
	}
	service := m.services["riverbeat"]
	served := m.selected(t, &metav1.LabelSelector{MatchLabels: service.Spec.Selector})
	require.Equal(t, []string{"riverbeat-api"}, served)
	require.Contains(t, ports(served), service.Spec.Ports[0].TargetPort.StrVal)

	for name, n := range m.networks {
		selected := m.selected(t, &n.Spec.PodSelector)
		require.NotEmpty(t, selected, name)
		var peers []networkingv1.NetworkPolicyPeer
		for _, in := range n.Spec.Ingress {
			peers = append(peers, in.From...)
			for _, port := range in.Ports {
				if port.Port.StrVal != "" {
					require.Contains(t, ports(selected), port.Port.StrVal, name)
				}
			}
		}
		for _, out := range n.Spec.Egress {
			peers = append(peers, out.To...)
		}
		for _, peer := range peers {
			if peer.PodSelector != nil && peer.NamespaceSelector == nil {
				require.NotEmpty(t, m.selected(t, peer.PodSelector), name)
			}
		}
	}
}

// What makes the pods fit the restricted standard is for Kubernetes's own check to say; the
// rest is ours.
func TestKubernetesPodsAreRestricted(t *testing.T) {
	t.Parallel()
	m := readManifests(t)
	require.Equal(t, "restricted", m.namespaces[m.kustomization.Namespace].Labels[admission.EnforceLevelLabel])
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	require.NoError(t, err)
	restricted := admission.LevelVersion{Level: admission.LevelRestricted, Version: admission.LatestVersion()}
	for name, pod := range m.pods() {
		result := policy.AggregateCheckResults(evaluator.EvaluatePod(restricted, &pod.ObjectMeta, &pod.Spec))
		require.True(t, result.Allowed, "%s: %s", name, result.ForbiddenDetail())

		require.False(t, *m.accounts[pod.Spec.ServiceAccountName].AutomountServiceAccountToken)
		require.False(t, *pod.Spec.AutomountServiceAccountToken, name)
		// A Service named riverbeat would be told of by RIVERBEAT_PORT and the like.
		require.False(t, *pod.Spec.EnableServiceLinks, name)
		for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
			require.True(t, *c.SecurityContext.ReadOnlyRootFilesystem, name)
			require.False(t, c.Resources.Requests.Cpu().IsZero(), name)
			require.False(t, c.Resources.Requests.Memory().IsZero(), name)
			require.False(t, c.Resources.Limits.Memory().IsZero(), name)
		}
	}
}

// Every call is one that the program knows, with settings that it takes.
func TestKubernetesCalls(t *testing.T) {
	t.Parallel()
	m := readManifests(t)
	page := fromTop(t, "docs/deployment.md")
	api := fromTop(t, "docs/openapi.json")
	common := map[string]string{}
	require.Len(t, m.kustomization.Settings, 1)
	for _, literal := range m.kustomization.Settings[0].Literals {
		name, value, _ := strings.Cut(literal, "=")
		common[name] = value
	}

	for name, pod := range m.pods() {
		for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
			require.Equal(t, m.kustomization.Images[0].Name, c.Image)
			require.Equal(t, m.kustomization.Settings[0].Name, c.EnvFrom[0].ConfigMapRef.Name)
			environment := maps.Clone(common)
			for _, variable := range c.Env {
				switch variable.Name {
				case "PGSSLMODE":
					require.Equal(t, "verify-full", variable.Value)
				case "PGSSLROOTCERT":
					require.Contains(t, mounted(t, pod.Spec, c, variable.Value), "-ca/")
				default:
					secret := mounted(t, pod.Spec, c, variable.Value)
					content := "0123456789abcdef"
					if strings.HasSuffix(secret, "/uri") {
						content = "postgresql://u:p@h:5432/d"
					}
					environment[variable.Name] = written(t, "secret", content)
				}
			}
			cfg := accepted(t, c.Args, environment)
			require.NotEmpty(t, cfg.DatabaseURL, name)
			require.False(t, cfg.InsecureNoAuth)
			if c.Args[0] != "serve" {
				continue
			}

			require.Equal(t, name, "riverbeat-"+string(cfg.Role))
			require.Equal(t, pod.Labels["app.kubernetes.io/component"], string(cfg.Role))
			require.Regexp(t, `:8080$`, cfg.Listen)
			require.Equal(t, int32(8080), c.Ports[0].ContainerPort)
			for path, probe := range map[string]*corev1.Probe{"/healthz": c.LivenessProbe, "/readyz": c.ReadinessProbe} {
				require.Equal(t, path, probe.HTTPGet.Path, "what is alive need not have a database")
				require.Equal(t, c.Ports[0].Name, probe.HTTPGet.Port.StrVal)
				require.Contains(t, api, `"`+path+`"`)
			}
			require.Equal(t, c.LivenessProbe.HTTPGet, c.StartupProbe.HTTPGet)
			stop := shutdown(cfg)
			if c.Lifecycle != nil {
				stop += time.Duration(c.Lifecycle.PreStop.Sleep.Seconds) * time.Second
			}
			require.Greater(t, time.Duration(*pod.Spec.TerminationGracePeriodSeconds)*time.Second, stop, name)
		}
		for _, volume := range pod.Spec.Volumes {
			if volume.Secret != nil && !madeByOperator(m, volume.Secret.SecretName) {
				require.Contains(t, page, "secret generic "+volume.Secret.SecretName+" ")
			}
		}
	}
	require.Equal(t, "riverbeat-postgres-app", m.jobs["riverbeat-migrate"].Spec.Template.Spec.Volumes[0].Secret.SecretName, "the owner migrates")
	var roles []string
	for _, role := range m.clusters["riverbeat-postgres"].Spec.Managed.Roles {
		roles = append(roles, role.Name)
		if role.Login {
			require.Equal(t, []string{"riverbeat_app"}, role.InRoles)
			require.Equal(t, "riverbeat-node", role.PasswordSecret.Name)
		}
	}
	require.Equal(t, []string{"riverbeat_app", "riverbeat_reader", "riverbeat_node"}, roles)
}

// madeByOperator tells whether CloudNativePG makes the Secret.
func madeByOperator(m *manifests, secret string) bool {
	for name := range m.clusters {
		if secret == name+"-app" || secret == name+"-ca" {
			return true
		}
	}
	return false
}

// mounted is the Secret and its key that a container finds under a path.
func mounted(t *testing.T, pod corev1.PodSpec, c corev1.Container, path string) string {
	t.Helper()
	for _, mount := range c.VolumeMounts {
		name, ok := strings.CutPrefix(path, mount.MountPath+"/")
		if !ok {
			continue
		}
		for _, volume := range pod.Volumes {
			if volume.Name != mount.Name {
				continue
			}
			require.Equal(t, int32(0o440), *volume.Secret.DefaultMode)
			for _, item := range volume.Secret.Items {
				if item.Path == name {
					return volume.Secret.SecretName + "/" + item.Key
				}
			}
		}
	}
	require.Fail(t, "nothing is mounted there", path)
	return ""
}
