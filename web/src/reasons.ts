// Why the model withholds an answer, worded by reason code; the server's English sentence where a code is not known.
import { language } from "./i18n/index.ts";

const ZH: Record<string, string> = {
  constant_picture: "这张图像没有内容：几乎所有像素的值都相同。请检查帧和窗。",
  not_radiology_colors: "这不像放射影像，因为它是彩色的。我只用 {trained} 训练过。",
  not_radiology_levels: "这不像放射影像：它只有几个均匀的灰度，像图画或掩膜。",
  not_radiology_features: "这张图像与我训练时见过的图像都不同，因此回答没有意义。",
  modality_not_trained: "文件注明的模态是 {modality}；我只用 {trained} 训练过。",
  modality_contradicts_header: "文件注明的模态是 {modality}，而在我看来像 {answer}：我不能依赖所见。",
  contradiction: "我对这个问题回答 {answer}，对相反的问题（{opposite}）回答 {other_answer}，因此两个答案都没有意义。",
  paraphrase_disagrees: "我对这个问题回答 {answer}，对换一种说法的同一问题（{opposite}）回答 {other_answer}，因此两个答案都没有意义。",
  picture_does_not_matter: "图像不影响我对这个问题的回答：同类的其他图像会得到相同的答案。",
  type_not_reliable: "对这类问题（{type}），我并不比不看图像的猜测更好：正确率 {accuracy}，基线 {baseline}，n={questions}{auc}。",
};

export function reasonText(code: string | null, values: Record<string, string>, english: string | null): string {
  const template = language.value === "zh" && code ? ZH[code] : undefined;
  if (!template) return english ?? "";
  return template.replace(/\{(\w+)\}/g, (placeholder, name) => values[name] ?? placeholder);
}
