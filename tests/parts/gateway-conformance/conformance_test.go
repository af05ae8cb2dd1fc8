// Package conformance runs the tests of the Gateway API's conformance suite that look at statuses and need no running pods.
package conformance

import (
	"bytes"
	"context"
	"io/fs"
	"os"
	"strings"
	"testing"
	"time"

	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	v1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/gateway-api/conformance"
	"sigs.k8s.io/gateway-api/conformance/tests"
	"sigs.k8s.io/gateway-api/conformance/utils/config"
	"sigs.k8s.io/gateway-api/conformance/utils/kubernetes"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
)

// The longest that a status may take.
const patience = 10 * time.Second

// TestGateway runs the tests that TOLLGATE_CONFORMANCE names, separated by commas, on the class `tollgate`.
func TestGateway(t *testing.T) {
	options := conformance.DefaultOptions(t)
	options.GatewayClassName = "tollgate"
	options.CleanupBaseResources, options.CleanupTestResources = false, true
	options.SupportedFeatures = suite.ParseSupportedFeaturesSlice("Gateway,HTTPRoute,HTTPRouteParentRefPort,ReferenceGrant")
	options.TimeoutConfig = hurried(options.TimeoutConfig)
	options.ManifestFS = []fs.FS{secured{options.ManifestFS[0]}}
	// The suite is of 1.6, the last version that this Go builds, and the definitions are of 1.7.
	options.AllowCRDsMismatch = true
	s, err := suite.NewConformanceTestSuite(options)
	if err != nil {
		t.Fatal(err)
	}
	begin(t, s)
	wanted := strings.Split(os.Getenv("TOLLGATE_CONFORMANCE"), ",")
	for _, name := range wanted {
		for _, test := range tests.ConformanceTests {
			if test.ShortName == name {
				test.Parallel = false
				t.Run(name, func(t *testing.T) { test.Run(t, s) })
			}
		}
	}
}

// begin is the suite's Setup without waiting for pods: nothing runs any, and one in each namespace says that it is ready.
func begin(t *testing.T, s *suite.ConformanceTestSuite) {
	s.Applier.ManifestFS = s.ManifestFS
	s.ControllerName = kubernetes.GWCMustHaveAcceptedConditionTrue(t, s.Client, s.TimeoutConfig, s.GatewayClassName)
	s.Applier.GatewayClass, s.Applier.ControllerName = s.GatewayClassName, s.ControllerName
	s.Applier.MustApplyWithCleanup(t, s.Client, s.TimeoutConfig, s.BaseManifests, false)
	for namespace, name := range map[string]string{
		suite.WebBackendNamespace:     "certificate",
		suite.InfrastructureNamespace: "tls-validity-checks-certificate",
	} {
		secret := kubernetes.MustCreateSelfSignedCertSecret(t, namespace, name, []string{"*", "*.org"})
		s.Applier.MustApplyObjectsWithCleanup(t, s.Client, s.TimeoutConfig, []client.Object{secret}, false)
	}
	for _, namespace := range []string{suite.WebBackendNamespace, suite.InfrastructureNamespace, suite.AppBackendNamespace} {
		pod := &core.Pod{
			ObjectMeta: meta.ObjectMeta{Namespace: namespace, Name: "ready"},
			Spec:       core.PodSpec{Containers: []core.Container{{Name: "none", Image: "none"}}},
		}
		must(t, s.Client.Create(context.Background(), pod))
		pod.Status.Conditions = []core.PodCondition{{Type: core.PodReady, Status: core.ConditionTrue}}
		must(t, s.Client.Status().Update(context.Background(), pod))
	}
	// Its certificates are Secrets, which Tollgate does not read: it is not to be ready, and is not waited for.
	gateway := &v1.Gateway{}
	name := client.ObjectKey{Namespace: suite.InfrastructureNamespace, Name: "same-namespace-with-https-listener"}
	must(t, s.Client.Get(context.Background(), name, gateway))
	gateway.Annotations = map[string]string{kubernetes.GatewayExcludedFromReadinessChecks: "true"}
	must(t, s.Client.Update(context.Background(), gateway))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func hurried(timeouts config.TimeoutConfig) config.TimeoutConfig {
	for _, timeout := range []*time.Duration{
		&timeouts.GatewayMustHaveAddress, &timeouts.GatewayMustHaveCondition, &timeouts.GatewayStatusMustHaveListeners,
		&timeouts.GatewayListenersMustHaveConditions, &timeouts.GWCMustBeAccepted, &timeouts.HTTPRouteMustNotHaveParents,
		&timeouts.HTTPRouteMustHaveCondition, &timeouts.RouteMustHaveParents, &timeouts.LatestObservedGenerationSet,
		&timeouts.DefaultTestTimeout, &timeouts.MaxTimeToConsistency, &timeouts.NamespacesMustBeReady,
	} {
		*timeout = patience
	}
	timeouts.TestIsolation = 0
	return timeouts
}

// secured are the suite's manifests, whose listeners that speak HTTP speak HTTPS with Tollgate's own certificate: it serves nothing in
// the clear.
type secured struct{ fs.FS }

func (s secured) ReadFile(name string) ([]byte, error) {
	text, err := fs.ReadFile(s.FS, name)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	for line := range strings.Lines(string(text)) {
		indent, found := strings.CutSuffix(line, "protocol: HTTP\n")
		if !found {
			out.WriteString(line)
			continue
		}
		under := strings.Repeat(" ", len(indent))
		out.WriteString(indent + "protocol: HTTPS\n" + under + "tls: {options: {tollgate.dev/certificate: own}}\n")
	}
	return out.Bytes(), nil
}
