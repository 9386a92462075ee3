package main

import (
	"encoding/json"
	"encoding/xml"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
)

// Google's XML interface, each request of which becomes one of the JSON interface.
type front struct {
	json    http.Handler
	lock    sync.Mutex
	uploads map[string]*upload
}

func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	bucket, object, _ := strings.Cut(strings.TrimPrefix(r.URL.EscapedPath(), "/"), "/")
	bucket, err := url.PathUnescape(bucket)
	if err == nil {
		object, err = url.PathUnescape(object)
	}
	if err != nil {
		refuse(w, http.StatusBadRequest, "InvalidURI", err.Error())
		return
	}
	query := r.URL.Query()
	switch {
	case object == "" && r.Method == http.MethodGet:
		f.list(w, bucket, query)
	case object == "":
		refuse(w, http.StatusMethodNotAllowed, "MethodNotAllowed", r.Method)
	case query.Has("uploads") || query.Has("uploadId"):
		f.multipart(w, r, bucket, object)
	case r.Method == http.MethodGet || r.Method == http.MethodHead:
		target := "/download/storage/v1/b/" + url.PathEscape(bucket) + "/o/" + url.PathEscape(object)
		f.pass(w, r, target, object)
	case r.Method == http.MethodPut && r.Header.Get("x-goog-copy-source") != "":
		f.copy(w, r, bucket, object)
	case r.Method == http.MethodPut:
		f.put(w, r, bucket, object, r.Body)
	case r.Method == http.MethodDelete:
		answer := f.ask(r.Method, "/storage/v1/b/"+url.PathEscape(bucket)+"/o/"+url.PathEscape(object), nil)
		if answer.Code >= 300 {
			refuseAs(w, answer.Code, object)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	default:
		refuse(w, http.StatusMethodNotAllowed, "MethodNotAllowed", r.Method)
	}
}

// What the JSON interface says.
func (f *front) ask(method, target string, body io.Reader) *httptest.ResponseRecorder {
	answer := httptest.NewRecorder()
	request := httptest.NewRequest(method, target, body)
	request.Header.Set("Content-Type", "application/octet-stream")
	f.json.ServeHTTP(answer, request)
	return answer
}

// Gives an object as it comes, and its errors in XML.
func (f *front) pass(w http.ResponseWriter, r *http.Request, target, object string) {
	request := r.Clone(r.Context())
	request.URL = &url.URL{Path: target, RawPath: target}
	decoded, err := url.Parse(target)
	if err == nil {
		request.URL = decoded
	}
	request.URL.RawQuery = ""
	request.RequestURI = target
	answer := &passing{to: w, object: object}
	f.json.ServeHTTP(answer, request)
}

type passing struct {
	to      http.ResponseWriter
	object  string
	refused bool
}

func (p *passing) Header() http.Header { return p.to.Header() }

func (p *passing) WriteHeader(status int) {
	if status == http.StatusNotFound {
		p.refused = true
		p.to.Header().Del("Content-Length")
		refuseAs(p.to, status, p.object)
		return
	}
	p.to.WriteHeader(status)
}

func (p *passing) Write(bytes []byte) (int, error) {
	if p.refused {
		return len(bytes), nil
	}
	return p.to.Write(bytes)
}

type resource struct {
	Name       string `json:"name"`
	Generation string `json:"generation"`
	Etag       string `json:"etag"`
	Size       string `json:"size"`
	Updated    string `json:"updated"`
}

func quoted(etag string) string { return `"` + strings.Trim(etag, `"`) + `"` }

// Writes an object; what was written, if it was.
func (f *front) insert(w http.ResponseWriter, r *http.Request, bucket, object string, body io.Reader) (resource, bool) {
	query := url.Values{"uploadType": {"media"}, "name": {object}}
	if generation := r.Header.Get("x-goog-if-generation-match"); generation != "" {
		query.Set("ifGenerationMatch", generation)
	}
	target := "/upload/storage/v1/b/" + url.PathEscape(bucket) + "/o?" + query.Encode()
	return written(w, f.ask(http.MethodPost, target, body), object)
}

func written(w http.ResponseWriter, answer *httptest.ResponseRecorder, object string) (resource, bool) {
	var made resource
	if answer.Code != http.StatusOK {
		refuseAs(w, answer.Code, object)
		return made, false
	}
	if err := json.Unmarshal(answer.Body.Bytes(), &made); err != nil {
		refuse(w, http.StatusInternalServerError, "InternalError", err.Error())
		return made, false
	}
	w.Header().Set("ETag", quoted(made.Etag))
	w.Header().Set("x-goog-generation", made.Generation)
	return made, true
}

func (f *front) put(w http.ResponseWriter, r *http.Request, bucket, object string, body io.Reader) {
	if _, done := f.insert(w, r, bucket, object, body); done {
		w.WriteHeader(http.StatusOK)
	}
}

func (f *front) copy(w http.ResponseWriter, r *http.Request, bucket, object string) {
	source, err := url.PathUnescape(strings.TrimPrefix(r.Header.Get("x-goog-copy-source"), "/"))
	if err != nil {
		refuse(w, http.StatusBadRequest, "InvalidArgument", err.Error())
		return
	}
	from, name, _ := strings.Cut(source, "/")
	target := "/storage/v1/b/" + url.PathEscape(from) + "/o/" + url.PathEscape(name) + "/copyTo/b/" +
		url.PathEscape(bucket) + "/o/" + url.PathEscape(object)
	made, done := written(w, f.ask(http.MethodPost, target, nil), name)
	if !done {
		return
	}
	answer(w, struct {
		XMLName      xml.Name `xml:"CopyObjectResult"`
		ETag         string
		LastModified string
	}{ETag: quoted(made.Etag), LastModified: made.Updated})
}

type contents struct {
	Key            string
	Generation     string
	MetaGeneration int
	LastModified   string
	ETag           string
	Size           string
}

type commonPrefix struct{ Prefix string }

type listing struct {
	XMLName               xml.Name `xml:"http://doc.s3.amazonaws.com/2006-03-01 ListBucketResult"`
	Name                  string
	Prefix                string
	Delimiter             string `xml:",omitempty"`
	MaxKeys               int
	IsTruncated           bool
	NextContinuationToken string `xml:",omitempty"`
	KeyCount              int
	Contents              []contents
	CommonPrefixes        []commonPrefix
}

const page = 1000

// A page of version 2 of the list.
func (f *front) list(w http.ResponseWriter, bucket string, query url.Values) {
	if query.Get("list-type") != "2" {
		refuse(w, http.StatusNotImplemented, "NotImplemented", "only list-type=2 is known here")
		return
	}
	most := page
	if asked, err := strconv.Atoi(query.Get("max-keys")); err == nil && asked > 0 && asked < page {
		most = asked
	}
	after := query.Get("start-after")
	wanted := url.Values{"prefix": {query.Get("prefix")}, "delimiter": {query.Get("delimiter")}}
	if after != "" {
		// From there on, where XML says behind it.
		wanted.Set("startOffset", after)
	}
	if token := query.Get("continuation-token"); token != "" {
		wanted.Set("pageToken", token)
	}
	wanted.Set("maxResults", strconv.Itoa(most))
	said := f.ask(http.MethodGet, "/storage/v1/b/"+url.PathEscape(bucket)+"/o?"+wanted.Encode(), nil)
	if said.Code != http.StatusOK {
		refuse(w, said.Code, "NoSuchBucket", bucket)
		return
	}
	var found struct {
		Items         []resource `json:"items"`
		Prefixes      []string   `json:"prefixes"`
		NextPageToken string     `json:"nextPageToken"`
	}
	if err := json.Unmarshal(said.Body.Bytes(), &found); err != nil {
		refuse(w, http.StatusInternalServerError, "InternalError", err.Error())
		return
	}
	result := listing{Name: bucket, Prefix: query.Get("prefix"), Delimiter: query.Get("delimiter"), MaxKeys: most}
	for _, item := range found.Items {
		if item.Name != after {
			result.Contents = append(result.Contents,
				contents{item.Name, item.Generation, 1, item.Updated, quoted(item.Etag), item.Size})
		}
	}
	for _, prefix := range found.Prefixes {
		result.CommonPrefixes = append(result.CommonPrefixes, commonPrefix{prefix})
	}
	result.NextContinuationToken = found.NextPageToken
	result.IsTruncated = found.NextPageToken != ""
	result.KeyCount = len(result.Contents) + len(result.CommonPrefixes)
	answer(w, result)
}

func answer(w http.ResponseWriter, value any) {
	w.Header().Set("Content-Type", "application/xml; charset=UTF-8")
	_, _ = io.WriteString(w, xml.Header)
	_ = xml.NewEncoder(w).Encode(value)
}

func refuse(w http.ResponseWriter, status int, code, reason string) {
	w.Header().Set("Content-Type", "application/xml; charset=UTF-8")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, xml.Header)
	_ = xml.NewEncoder(w).Encode(struct {
		XMLName xml.Name `xml:"Error"`
		Code    string
		Message string
	}{Code: code, Message: reason})
}

// Refuses as the JSON interface did.
func refuseAs(w http.ResponseWriter, status int, object string) {
	codes := map[int]string{
		http.StatusNotFound:           "NoSuchKey",
		http.StatusPreconditionFailed: "PreconditionFailed",
	}
	code, known := codes[status]
	if !known {
		code = "InternalError"
	}
	refuse(w, status, code, object)
}
